package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/federation"
	"github.com/consign-transfer/consign/certs/issue"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// reloadEvery is how often certificate files are looked at.
const reloadEvery = 10 * time.Second

// drainTime is how long requests under way may take when a listener stops.
const drainTime = 5 * time.Second

// logger returns a logger that writes JSON lines to standard error.
func (a *app) logger(level string) (*zap.Logger, error) {
	lv, err := zapcore.ParseLevel(level)
	if err != nil || lv > zapcore.ErrorLevel {
		return nil, problem.New(problem.BadConfig, "The log level is %s and must be debug, info, warn or error", quoted(level))
	}
	conf := zap.NewProductionEncoderConfig()
	conf.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	core := zapcore.NewCore(zapcore.NewJSONEncoder(conf), zapcore.Lock(zapcore.AddSync(a.err)), lv)
	return zap.New(core), nil
}

func domainField(p token.Provider) zap.Field { return zap.String("domain", string(p)) }
func addressField(a net.Addr) zap.Field      { return zap.Stringer("address", a) }

func logError(log *zap.Logger, what string, err error) {
	log.Warn(what, zap.String("code", string(problem.Of(err))), zap.Error(err))
}

func logAlarm(log *zap.Logger, al issue.Alarm) {
	log.Error("a join token was used a second time: one of the two users is not who it was given to",
		zap.String("identity", string(al.Identity)), zap.String("remote", al.Remote), zap.Time("at", al.At))
}

// listenTCP binds an address; failure is problem.BadConfig, for the operator chose it.
func listenTCP(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The address %s cannot be listened at", quoted(address))
	}
	return ln, nil
}

// serveHTTP runs serve until ctx ends, then lets what is under way finish for drainTime. It
// returns nil after an orderly stop.
func serveHTTP(ctx context.Context, srv *http.Server, serve func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- serve() }() // ends by Shutdown or Close below, and is waited for
	select {
	case err := <-ended:
		return fmt.Errorf("listening: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		srv.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("listening: %w", err)
	}
	return nil
}

// readByOthers reports whether a key file's mode lets others than its owner read it. It is told and not refused,
// because those who mount secrets cannot always choose.
func readByOthers(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.Mode().Perm()&0o077 != 0
}

// An identity keeps a daemon's certificate and trust alive.
type identity struct {
	pair     *certs.Pair
	trust    *certs.Trust
	renewer  *certs.Renewer // nil: somebody else replaces the files
	renewals *prometheus.CounterVec
	peers    federation.Poller
	log      *zap.Logger
}

// believing is whom a daemon believes.
type believing struct {
	trustConfig
	federation map[token.Provider]federationConfig
}

func (a *app) openIdentity(ctx context.Context, conf identityConfig, trust believing, log *zap.Logger) (*identity, error) {
	if conf.Cert == "" || conf.Key == "" && len(conf.Signer) == 0 {
		return nil, problem.New(problem.BadConfig, "The configuration names no identity: identity.cert and identity.key are needed, or identity.signer instead of the key")
	}
	if conf.RenewURL != "" && conf.ACME != nil {
		return nil, problem.New(problem.BadConfig, "The configuration names two authorities: identity.renew_url and identity.acme; keep one")
	}
	pair, err := a.openLoggedPair(ctx, conf.keys(), log)
	if err != nil {
		return nil, conf.notYet(err)
	}
	peers, err := endpoints(trust.federation, trust.trustConfig)
	if err != nil {
		return nil, err
	}
	if err := firstBundles(ctx, peers, trust.trustConfig); err != nil {
		return nil, err
	}
	t, err := trust.open()
	if err != nil {
		return nil, err
	}
	if readByOthers(string(conf.Key)) {
		log.Warn("the private key can be read by others; give it the mode 0600", zap.String("file", string(conf.Key)))
	}
	id := &identity{pair: pair, trust: t, log: log, peers: follower(peers, t, log), renewals: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "consign_certificate_renewals_total", Help: "Attempts to renew our certificate, by how they ended."}, []string{"result"})}
	renew, err := conf.renewal(pair, t)
	if err != nil {
		return nil, err
	}
	if renew != nil {
		id.renewer = &certs.Renewer{
			Pair: pair, Renew: renew,
			OnRenewed: func(until time.Time) {
				id.renewals.WithLabelValues("renewed").Inc()
				log.Info("certificate renewed", zap.Time("until", until))
			},
			OnError: func(err error) {
				id.renewals.WithLabelValues("failed").Inc()
				logError(log, "renewing the certificate", err)
			},
		}
	}
	return id, nil
}

// measure registers what there is to know of our certificate.
func (i *identity) measure(reg prometheus.Registerer) {
	reg.MustRegister(i.renewals, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "consign_certificate_expires_timestamp_seconds", Help: "End of the certificate in use, in seconds since 1970 UTC.",
	}, func() float64 { return float64(i.pair.NotAfter().Unix()) }))
}

// Run reloads the files when they change and at SIGHUP, and renews the certificate, until ctx ends.
func (i *identity) Run(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	renewed := make(chan struct{})
	go func() { // ends with ctx; waited for below
		defer close(renewed)
		if i.renewer != nil {
			i.renewer.Run(ctx)
		}
	}()
	defer func() { <-renewed }()
	followed := make(chan struct{})
	go func() { // ends with ctx; waited for below
		defer close(followed)
		i.peers.Run(ctx)
	}()
	defer func() { <-followed }()
	watched := make(chan struct{})
	go func() { // ends with ctx; waited for below
		defer close(watched)
		certs.Watch(ctx, reloadEvery, func(err error) { logError(i.log, "looking at certificates", err) }, i.reloaders()...)
	}()
	defer func() { <-watched }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			i.reload()
		}
	}
}

// fresh is a Reloader that reads nothing, and whose failure is a revocation list past its end: it is told once, whatever
// the policy makes of it.
type fresh struct{ trust *certs.Trust }

// Reload is that of certs.Reloader.
func (f fresh) Reload() (changed bool, err error) { return false, f.trust.Stale(time.Now()) }

// reloaders are what is looked at every reloadEvery, in that order.
func (i *identity) reloaders() []certs.Reloader {
	return []certs.Reloader{
		replaced{i.pair, "the certificate was replaced", i.log}, replaced{i.trust, "bundles, revocation lists, accounts or denials were replaced", i.log},
		fresh{i.trust}, &nearEnd{pair: i.pair, now: time.Now, log: i.log},
	}
}

func (i *identity) reload() {
	i.log.Info("looking at certificates at once")
	for _, r := range i.reloaders()[:2] {
		if _, err := r.Reload(); err != nil {
			logError(i.log, "reloading certificates", err)
		}
	}
}

// replaced has the log say when something new is in use: who denies somebody sees that it took effect.
type replaced struct {
	certs.Reloader
	says string
	log  *zap.Logger
}

// Reload is that of certs.Reloader.
func (r replaced) Reload() (changed bool, err error) {
	changed, err = r.Reloader.Reload()
	if changed {
		r.log.Info(r.says)
	}
	return changed, err
}

// nearEnd has the log say, once each, that our certificate is in the last quarter of its life, when whoever renews it should have
// done so long ago, and that it has ended. It reads nothing and never fails.
type nearEnd struct {
	pair *certs.Pair
	now  func() time.Time
	log  *zap.Logger
	told string
}

// Reload is that of certs.Reloader.
func (e *nearEnd) Reload() (changed bool, err error) {
	_, chain, id := e.pair.Current()
	end := chain[0].NotAfter
	left, life, text := end.Sub(e.now()), end.Sub(chain[0].NotBefore), ""
	switch {
	case left <= 0:
		text = "our certificate has ended and nobody takes it any more; put a new one in place"
	case left < life/4:
		text = "our certificate ends soon and has not been renewed; nobody takes it after that"
	}
	if text != "" && text+end.String() != e.told {
		e.told = text + end.String()
		e.log.Error(text, zap.String("identity", string(id)), zap.Time("until", end))
	}
	return false, nil
}

// adminServer answers /livez, /readyz and /metrics of a daemon. ready returns nil or why not.
func adminServer(reg *prometheus.Registry, ready func() error) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			answer(w, http.StatusServiceUnavailable, problem.As(err).Sentence())
			return
		}
		answer(w, http.StatusOK, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	return &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // a reader that is gone is no news
}

// check prints the effective configuration with the origin of each value: --check.
func (a *app) check(values []setting) error {
	out := newPrinter(a, []string{"SETTING", "VALUE", "ORIGIN"}, func(s setting) []string {
		return []string{s.Key, printable(s.Value), printable(s.Origin)}
	})
	for _, v := range values {
		if err := out.Print(v); err != nil {
			return err
		}
	}
	return out.Close()
}
