package agent

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the agent's counters.
type metrics struct {
	bytes    *prometheus.CounterVec
	items    *prometheus.CounterVec
	wants    *prometheus.CounterVec
	batches  *prometheus.CounterVec
	receipts *prometheus.CounterVec
	refusals *prometheus.CounterVec
	swept    *prometheus.CounterVec
	opened   *prometheus.CounterVec
	renewals prometheus.Counter
	lanes    prometheus.Gauge
	unsafe   prometheus.Gauge
}

// newMetrics makes the counters and registers them, if there is where. Several agents of one process need
// registries of their own.
func newMetrics(reg prometheus.Registerer, a *Agent) (*metrics, error) {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "consign", Subsystem: "agent", Name: name, Help: help}, labels)
	}
	m := &metrics{
		bytes:    vec("bytes_total", "Bytes of objects that came in or went out over lanes, repeated ones included.", "direction"),
		items:    vec("items_total", "Items with a final outcome.", "outcome"),
		wants:    vec("wants_total", "Requests for content.", "kind"),
		batches:  vec("batches_taken_total", "Batches that were taken.", "side"),
		receipts: vec("receipts_total", "Receipts that a broker has accepted.", "side"),
		refusals: vec("refusals_total", "Tasks, lanes and capabilities that were refused.", "code"),
		swept:    vec("swept_batches_total", "Batches of ours that had ended and whose left over stages were dropped.", "container"),
		opened:   vec("lanes_opened_total", "Lanes that came up, by who dialled: out is we.", "direction"),
		renewals: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "consign", Subsystem: "agent", Name: "capability_renewals_total",
			Help: "Capabilities that were renewed."}),
		unsafe: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "consign", Subsystem: "agent", Name: "unsafe_stores",
			Help: "Stores that are written although they do not create exclusively."}),
		lanes: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "consign", Subsystem: "agent", Name: "lanes", Help: "Lanes that are open."}),
	}
	if reg == nil {
		return m, nil
	}
	live := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "consign", Subsystem: "agent", Name: "batches", Help: "Batches in the journals."},
		func() float64 { return float64(len(a.of(""))) })
	var errs []error
	for _, c := range []prometheus.Collector{m.bytes, m.items, m.wants, m.batches, m.receipts, m.refusals, m.swept, m.opened, m.renewals, m.unsafe, m.lanes, live} {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return m, nil
}
