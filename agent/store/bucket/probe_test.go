package bucket_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/backendtest"
	"github.com/consign-transfer/consign/agent/store/storetest"
	"github.com/consign-transfer/consign/token/problem"
)

func TestProbeRefusesLiars(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		lie      backendtest.Lie
		want     problem.Code
		sentence string
	}{
		{backendtest.ReplacesPut, problem.NotExclusive, "The store at memory accepted 4 of 4 concurrent creations of one name: it does not create exclusively."},
		{backendtest.ReplacesWhole, problem.NotExclusive, "The store at memory accepted 4 of 4 concurrent completions of one name: it does not create exclusively."},
		{backendtest.LosesRaces, problem.NotExclusive, "concurrent completions of one name"},
		{backendtest.ForgetsMeta, problem.BadConfig, "does not keep user metadata"},
		{backendtest.ForgetsPins, problem.BadConfig, "no safe source"},
		{backendtest.MiscountsParts, problem.BadConfig, "does not list the parts"},
		{backendtest.CutsRanges, problem.BadConfig, "does not return the bytes"},
	} {
		for _, named := range []bool{false, true} {
			svc := backendtest.New(backendtest.Options{Lie: tt.lie, Named: named})
			s := open(svc, nil, "a/b")
			traits, err := s.Probe(t.Context())
			if problem.Of(err) != tt.want || !strings.Contains(problem.As(err).Sentence(), tt.sentence) {
				t.Errorf("lie %d, named %v: got %v, want %s and %q", tt.lie, named, err, tt.want, tt.sentence)
			}
			if tt.want == problem.NotExclusive && (traits.Exclusive != "" || traits.PartSize != part || !traits.Meta || !traits.Lists) {
				t.Errorf("lie %d: got %+v, want what was measured, and not exclusive", tt.lie, traits)
			}
			if left := svc.Keys(); len(left) != 0 || len(svc.Unfinished()) != 0 {
				t.Errorf("lie %d: the probe has left %q and %+v", tt.lie, left, svc.Unfinished())
			}
		}
	}
}

func TestProbeMeasures(t *testing.T) {
	t.Parallel()
	for name, opt := range services {
		s := open(backendtest.New(opt), nil, "")
		got, err := s.Probe(t.Context())
		want := store.Traits{
			Exclusive: "If-None-Match", PartSize: part, MaxParts: 10000, Lists: !opt.Unlisted, Volatile: true, Flat: true, Modes: true, ModTimes: true, Types: true, Meta: true,
		}
		if err != nil || got != want {
			t.Errorf("%s: got %+v and %v, want %+v", name, got, err, want)
		}
	}
}

// TestProbeThroughFaults: each call fails once, and the probe neither fails nor calls an honest service a liar.
func TestProbeThroughFaults(t *testing.T) {
	t.Parallel()
	away := &bucket.Away{Err: errors.New("no answer")}
	clean := backendtest.New(backendtest.Options{})
	if _, err := open(clean, nil, "").Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	for at := range len(clean.Calls()) {
		svc := backendtest.New(backendtest.Options{})
		svc.Fail(func(c backendtest.Call) backendtest.Fault {
			if c.N == at {
				return backendtest.Fault{Err: away, Done: at%2 == 0}
			}
			return backendtest.Fault{}
		})
		if traits, err := open(svc, nil, "").Probe(t.Context()); err != nil || traits.Exclusive == "" {
			t.Errorf("no answer at call %d, %+v: got %+v and %v", at, svc.Calls()[at], traits, err)
		}
		if len(svc.Keys()) != 0 {
			t.Errorf("no answer at call %d: the probe has left %q", at, svc.Keys())
		}
	}
}

func TestProbeCleansUpAfterACrash(t *testing.T) {
	t.Parallel()
	for _, named := range []bool{false, true} {
		svc := backendtest.New(backendtest.Options{Named: named})
		n := 0
		svc.Fail(func(backendtest.Call) backendtest.Fault {
			if n++; n > 60 {
				return backendtest.Fault{Err: errKilled}
			}
			return backendtest.Fault{}
		})
		if _, err := open(svc, nil, "").Probe(t.Context()); !errors.Is(err, errKilled) {
			t.Fatalf("got %v, want %v", err, errKilled)
		}
		svc.Fail(nil)
		left := len(svc.Keys()) + len(svc.Unfinished())
		if left == 0 {
			t.Fatal("the crashed probe has left nothing; the test has lost its teeth")
		}
		s := open(svc, nil, "")
		if err := s.Leftovers(t.Context(), func(l store.Leftover) bool { t.Errorf("a probe's %+v is told", l); return true }); err != nil {
			t.Fatal(err)
		}
		if got := storetest.Names(t, s, "", ""); len(got) != 0 {
			t.Errorf("a probe's objects are listed: %q", got)
		}
		if _, err := s.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
		if now := len(svc.Keys()) + len(svc.Unfinished()); now != left {
			t.Errorf("another's probe, of a moment ago, was touched: %d of %d are left", now, left)
		}
		opt := testOptions("")
		opt.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
		if _, err := bucket.New(svc.Backend(), opt).Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(svc.Keys())+len(svc.Unfinished()) != 0 {
			t.Errorf("left after two hours: %q and %+v", svc.Keys(), svc.Unfinished())
		}
	}
}

// TestUnsafeStoreLooksFirst: a service that replaces, allowed all the same, is not asked to create what is seen to exist.
func TestUnsafeStoreLooksFirst(t *testing.T) {
	t.Parallel()
	for _, lie := range []backendtest.Lie{backendtest.ReplacesPut, backendtest.ReplacesWhole} {
		svc := backendtest.New(backendtest.Options{Lie: lie})
		s := open(svc, nil, "")
		if _, err := s.Probe(t.Context()); problem.Of(err) != problem.NotExclusive {
			t.Fatalf("got %v, want %s", err, problem.NotExclusive)
		}
		svc.Set("d/item-0", []byte("theirs"), nil)
		svc.Set("d/item-1", []byte("theirs"), nil)
		a := newAgent(t, s)
		if err := a.live(t.Context()); err != nil {
			t.Error(err)
		}
		for i, want := range []problem.Code{problem.Taken, problem.Taken, ""} {
			if got := problem.Of(a.failed[i]); got != want {
				t.Errorf("item %d: got %q, want %q", i, got, want)
			}
		}
		for _, key := range []string{"d/item-0", "d/item-1"} {
			if got, _ := svc.Content(key); string(got) != "theirs" {
				t.Errorf("%s was replaced", key)
			}
		}
	}
}
