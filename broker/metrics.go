package broker

import (
	"context"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token/problem"
)

// metrics are what /metrics shows of a broker.
type metrics struct {
	registry  *prometheus.Registry
	transfers *prometheus.GaugeVec
	batches   *prometheus.GaugeVec
	receipts  *prometheus.CounterVec
	problems  *prometheus.CounterVec
	leaves    prometheus.Counter
	agents    prometheus.Gauge
}

func newMetrics(version string) *metrics {
	m := &metrics{
		registry:  prometheus.NewRegistry(),
		transfers: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "consign_transfers", Help: "Transfers by state."}, []string{"state"}),
		batches:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "consign_batches", Help: "Batches by state."}, []string{"state"}),
		receipts:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "consign_receipts_total", Help: "Receipts accepted by side."}, []string{"side"}),
		problems:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "consign_problems_total", Help: "Refusals and failed items by code."}, []string{"code"}),
		leaves:    prometheus.NewCounter(prometheus.CounterOpts{Name: "consign_leaves_total", Help: "Leaves appended to the ledger."}),
		agents:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "consign_agents_connected", Help: "Agents with an open task stream."}),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "consign_build_info", Help: "Always 1; the labels say which program runs."}, []string{"version", "go"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	m.registry.MustRegister(m.transfers, m.batches, m.receipts, m.problems, m.leaves, m.agents, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// CountProblem counts a refusal of a request by its code.
func (b *Broker) CountProblem(err error) {
	b.metrics.problems.WithLabelValues(string(problem.Lookup(problem.Of(err)).Code)).Inc()
}

// gauge sets the gauges to what the database and memory hold.
func (b *Broker) gauge(ctx context.Context) error {
	var transfers, batches map[string]int64
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		if transfers, err = tx.TransferStates(ctx); err != nil {
			return err
		}
		batches, err = tx.BatchStates(ctx)
		return err
	})
	if err != nil {
		return err
	}
	b.metrics.transfers.Reset()
	for s, n := range transfers {
		b.metrics.transfers.WithLabelValues(s).Set(float64(n))
	}
	b.metrics.batches.Reset()
	for s, n := range batches {
		b.metrics.batches.WithLabelValues(s).Set(float64(n))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, s := range b.sessions {
		if s.stream != 0 {
			n++
		}
	}
	b.metrics.agents.Set(float64(n))
	return nil
}
