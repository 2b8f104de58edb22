package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	maxSlower = 3.0  // how many times as long ls and stat may take at their 99th percentile while objects are adopted
	maxGrowth = 1.25 // of the broker's memory, from the first quarter of an adoption to the last
	fewFiles  = 100  // in the folder that is listed

	sampleEvery = 250 * time.Millisecond // memory
	lookPause   = 40 * time.Millisecond  // between two calls
)

// An adopted is what one adoption of the campaign came to.
type adopted struct {
	What        string  `json:"what"`
	Objects     int64   `json:"objects"`
	Containers  int64   `json:"containers"`
	Made        int64   `json:"rows_made"`
	Changed     int64   `json:"rows_changed"`
	Seconds     float64 `json:"seconds"`
	PerSecond   float64 `json:"objects_per_s"`
	FirstMiB    float64 `json:"broker_rss_first_quarter_mib"` // largest
	LastMiB     float64 `json:"broker_rss_last_quarter_mib"`
	Growth      float64 `json:"growth"`
	DatabaseMiB float64 `json:"database_mib"`
	Kills       int     `json:"broker_killed"`
}

// A slowness is how long calls of one kind take without and with an adoption beside them.
type slowness struct {
	Call      string  `json:"call"`
	Idle      int     `json:"idle_calls"`
	IdleP50   float64 `json:"idle_p50_ms"`
	IdleP99   float64 `json:"idle_p99_ms"`
	Meanwhile int     `json:"meanwhile_calls"`
	P50       float64 `json:"meanwhile_p50_ms"`
	P99       float64 `json:"meanwhile_p99_ms"`
	Slower    float64 `json:"p99_ratio"`
}

// adopt enters many objects in the namespace, and measures the broker's memory and how long others wait. Then more have come: it does so again, with a broker
// that is killed in the middle of those, and each of them must have been made once.
func adopt(ctx context.Context, b *bench) error {
	admin := token.NewIdentity("north", token.Subscriber, "alice")
	w, err := b.newWorldWith(ctx, settings{hub: []localnet.Setting{{Key: "administrators", Value: []string{string(admin)}}}})
	if err != nil {
		return err
	}
	if err := w.fillMany(filepath.Join(w.from, "many"), 0); err != nil {
		return err
	}
	if err := w.fillFew(); err != nil {
		return err
	}
	v, err := w.visitor()
	if err != nil {
		return err
	}
	defer v.client.Close()
	if err := v.visitFor(ctx, b.idle); err != nil { // the first calls are those of a cold start
		return err
	}
	v.took = map[string][]float64{}
	if err := v.visitFor(ctx, b.idle); err != nil {
		return err
	}
	idle := v.took
	v.took = map[string][]float64{}
	first, err := w.adoptAll(ctx, v, "first", 0)
	if err != nil {
		return err
	}
	if err := b.report(first); err != nil {
		return err
	}
	broken := first.Made != first.Objects+first.Containers || first.Growth > maxGrowth
	for _, call := range []string{"ls", "stat"} {
		s := slownessOf(call, idle[call], v.took[call])
		if err := b.report(s); err != nil {
			return err
		}
		broken = broken || !s.good()
	}
	more := max(w.files/10, 1)
	if err := w.fillSome(filepath.Join(w.from, "anew"), more, 0); err != nil { // which is listed first
		return err
	}
	again, err := w.adoptAll(ctx, v, "again", int64(more/2))
	if err != nil {
		return err
	}
	if err := b.report(again); err != nil {
		return err
	}
	folders := int64(1 + (more+999)/1000)
	if broken || again.Kills != 1 || again.Changed != 0 || again.Made != int64(more)+folders || again.Objects != first.Objects+int64(more) || again.Containers != first.Containers+folders {
		return errBroken
	}
	return nil
}

// fillFew makes the folder that is listed.
func (w *world) fillFew() error {
	dir := filepath.Join(w.from, "few")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	for i := range fewFiles {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%03d", i)), nil, 0o600); err != nil {
			return fmt.Errorf("making a small file: %w", err)
		}
	}
	return nil
}

// adoptAll adopts the whole container: while v visits, or with a broker that is killed once so many objects are entered, if that is not 0.
func (w *world) adoptAll(ctx context.Context, v *visitor, what string, killAt int64) (adopted, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*patience)
	defer cancel()
	r := adopted{What: what}
	began := time.Now()
	out, err := w.net.Run(ctx, w.config, "adopt", "-o", "json", "north:/src/")
	if err != nil {
		return r, err
	}
	var a api.Adoption
	if err := json.Unmarshal([]byte(out.Stdout), &a); err != nil {
		return r, fmt.Errorf("reading what adopt printed: %w", err)
	}
	var sizes []float64
	stop := make(chan struct{})
	var sampling sync.WaitGroup
	sampling.Go(func() { sizes = sample(w.broker.Proc, stop) })
	a, err = w.seeOut(ctx, v, a, &r, killAt)
	close(stop)
	sampling.Wait()
	if err == nil && a.State != api.Complete {
		err = fmt.Errorf("the adoption %s ended %s: %+v", a.ID, a.State, a.Problem)
	}
	if err != nil {
		return r, err
	}
	r.Objects, r.Containers, r.Made, r.Changed, r.Seconds = a.Objects, a.Containers, a.Made, a.Changed, time.Since(began).Seconds()
	r.PerSecond = float64(r.Objects) / r.Seconds
	r.measure(sizes)
	r.DatabaseMiB, err = w.databaseMiB()
	return r, err
}

// seeOut looks at an adoption until it has ended.
func (w *world) seeOut(ctx context.Context, v *visitor, a api.Adoption, r *adopted, killAt int64) (api.Adoption, error) {
	for !a.State.Ended() {
		if killAt > 0 {
			pass(ctx, lookPause)
		} else if err := v.visit(ctx); err != nil {
			return a, err
		}
		got, err := v.client.Adoption(ctx, a.ID, 0, 0)
		switch {
		case err == nil:
			a = got
		case ctx.Err() != nil || !problem.MayRetry(err):
			return a, err
		}
		if r.Kills == 0 && killAt > 0 && a.Objects >= killAt {
			r.Kills++
			if err := w.broker.Kill(); err != nil {
				return a, err
			}
			if err := w.broker.Start(ctx); err != nil {
				return a, err
			}
		}
	}
	return a, nil
}

// measure compares the ends of a series of sizes, in MiB.
func (r *adopted) measure(sizes []float64) {
	quarter := len(sizes) / 4
	if quarter == 0 {
		return
	}
	r.FirstMiB, r.LastMiB = slices.Max(sizes[:quarter]), slices.Max(sizes[len(sizes)-quarter:])
	r.Growth = r.LastMiB / r.FirstMiB
}

// sample returns the resident size of a daemon, in MiB, every sampleEvery until stop is closed.
func sample(p *localnet.Proc, stop <-chan struct{}) []float64 {
	var out []float64
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return out
		case <-tick.C:
			if mib, ok := residentMiB(p.PID()); ok {
				out = append(out, mib)
			}
		}
	}
}

// residentMiB returns how much memory a process occupies now.
func residentMiB(pid int) (float64, bool) {
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kib / 1024, err == nil
		}
	}
	return 0, false
}

// databaseMiB is what the broker's database takes on disk.
func (w *world) databaseMiB() (float64, error) {
	files, err := filepath.Glob(filepath.Join(w.net.Dir, "brokers", "hub", "state", "*"))
	if err != nil {
		return 0, fmt.Errorf("looking for the database: %w", err)
	}
	var n int64
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			n += info.Size()
		}
	}
	return float64(n) / (1 << 20), nil
}

// A visitor is a subscriber who calls the broker as 'consign ls' and 'consign stat' do, each time with an order of its own, and notes how long it
// takes.
type visitor struct {
	client *api.Client
	pair   *certs.Pair
	signer token.Signer
	took   map[string][]float64 // ms
}

func (w *world) visitor() (*visitor, error) {
	trust, err := certs.TrustFiles{Bundles: w.net.Trust()}.Open()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(w.net.Dir, "subscribers", "alice", "north")
	pair, err := certs.OpenPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, err
	}
	signer, err := token.NewSigner(pair.Signer())
	if err != nil {
		return nil, err
	}
	return &visitor{client: api.NewClient(w.broker.URL, certs.BrokerClient(pair, trust, w.broker.ID)), pair: pair, signer: signer, took: map[string][]float64{}}, nil
}

// visitFor visits for so long.
func (v *visitor) visitFor(ctx context.Context, d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); {
		if err := v.visit(ctx); err != nil {
			return err
		}
	}
	return nil
}

// visit makes one call of each kind, each after a pause.
func (v *visitor) visit(ctx context.Context) error {
	few := token.Location{Provider: "north", Container: "src", Name: "few"}
	err := v.call(ctx, "ls", token.Order{Do: token.List, Scope: token.Tree, From: few}, fewFiles)
	few.Name += "/007"
	return errors.Join(err, v.call(ctx, "stat", token.Order{Do: token.Stat, Scope: token.One, From: few}, 1))
}

// call makes one call, of which want entries must come.
func (v *visitor) call(ctx context.Context, name string, o token.Order, want int) error {
	pass(ctx, lookPause)
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("making an id: %w", err)
	}
	now := time.Now()
	o.ID, o.Accounts, o.Iat, o.Exp = token.TransferID(id.String()), []token.Identity{v.pair.Identity()}, now.Unix(), now.Add(10*time.Minute).Unix()
	jws, err := v.signer.Order(o)
	if err != nil {
		return err
	}
	_, chain, _ := v.pair.Current()
	got, err := v.client.Lookup(ctx, api.Lookup{Order: api.SignedOrder{JWS: []string{jws}, Chains: []string{string(chain.PEM())}}, Level: true})
	if err != nil {
		return err
	}
	if len(got.Entries) != want {
		return fmt.Errorf("%s told of %d entries, want %d", name, len(got.Entries), want)
	}
	v.took[name] = append(v.took[name], float64(time.Since(now).Microseconds())/1000)
	return nil
}

func slownessOf(call string, idle, meanwhile []float64) slowness {
	s := slowness{Call: call, Idle: len(idle), Meanwhile: len(meanwhile)}
	s.IdleP50, s.IdleP99 = percentile(idle, 50), percentile(idle, 99)
	s.P50, s.P99 = percentile(meanwhile, 50), percentile(meanwhile, 99)
	if s.IdleP99 > 0 {
		s.Slower = s.P99 / s.IdleP99
	}
	return s
}

// good reports whether the promise was kept. One that was not measured was not.
func (s slowness) good() bool {
	return s.Idle >= 100 && s.Meanwhile >= 100 && s.Slower > 0 && s.Slower <= maxSlower
}

// percentile returns the smallest value that p percent of all do not exceed; 0 of none.
func percentile(all []float64, p int) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}
