package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/backendtest"
	"github.com/consign-transfer/consign/agent/store/storetest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// reader opens an object of n bytes.
func reader(t *testing.T, n int) (*backendtest.Service, store.Reader, []byte) {
	t.Helper()
	svc := backendtest.New(backendtest.Options{})
	data := storetest.Content(1, n)
	svc.Set("x", data, nil)
	s := open(svc, nil, "")
	in, err := s.Stat(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), "x", in.Version)
	if err != nil {
		t.Fatal(err)
	}
	return svc, r, data
}

func readAll(t *testing.T, r store.Reader, off, n int64) ([]byte, error) {
	t.Helper()
	sec, err := r.Section(t.Context(), off, n)
	if err != nil {
		return nil, err
	}
	defer sec.Close()
	return io.ReadAll(sec)
}

// TestSectionGoesOn breaks each answer after some bytes: the rest is asked for, from where it broke.
func TestSectionGoesOn(t *testing.T) {
	t.Parallel()
	for _, cut := range []int64{500, 999, 4096, 50_000} {
		svc, r, data := reader(t, 60_000)
		svc.Fail(func(backendtest.Call) backendtest.Fault { return backendtest.Fault{Cut: cut} })
		got, err := readAll(t, r, 1000, 58_000)
		if err != nil || !bytes.Equal(got, data[1000:59_000]) {
			t.Errorf("cut after %d: got %d bytes and %v, want 58000 that are right", cut, len(got), err)
		}
		if err := r.Check(t.Context()); err != nil {
			t.Errorf("Check: %v", err)
		}
	}
}

// TestSectionOfWhatWasReplaced breaks the first answer, and replaces the object before the second.
func TestSectionOfWhatWasReplaced(t *testing.T) {
	t.Parallel()
	for name, touch := range map[string]func(*backendtest.Service){
		"replaced": func(svc *backendtest.Service) { svc.Set("x", storetest.Content(2, 60_000), nil) },
		"removed":  func(svc *backendtest.Service) { svc.Unset("x") },
	} {
		svc, r, data := reader(t, 60_000)
		svc.Fail(func(backendtest.Call) backendtest.Fault { return backendtest.Fault{Cut: 500} })
		sec, err := r.Section(t.Context(), 0, 60_000)
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 500)
		if _, err := io.ReadFull(sec, first); err != nil || !bytes.Equal(first, data[:500]) {
			t.Fatalf("%s: the first bytes: %v", name, err)
		}
		touch(svc)
		more, err := io.ReadAll(sec)
		if problem.Of(err) != problem.Changed || len(more) != 0 {
			t.Errorf("%s: got %d bytes more and %v, want %s", name, len(more), err, problem.Changed)
		}
		if err := r.Check(t.Context()); problem.Of(err) != problem.Changed {
			t.Errorf("%s: Check: got %v, want %s", name, err, problem.Changed)
		}
	}
}

func TestSectionEnds(t *testing.T) {
	t.Parallel()
	_, r, data := reader(t, 1000)
	if got, err := readAll(t, r, 900, 200); !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.Equal(got, data[900:]) {
		t.Errorf("a section over the end: got %d bytes and %v, want 100 and %v", len(got), err, io.ErrUnexpectedEOF)
	}
	if got, err := readAll(t, r, 0, 0); err != nil || len(got) != 0 {
		t.Errorf("an empty section: got %d bytes and %v", len(got), err)
	}
}

// TestStallsAreGivenUp: a service that takes a request and says nothing costs Stall at each try, and Patience in all.
func TestStallsAreGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := backendtest.New(backendtest.Options{})
		opt := testOptions("")
		opt.Stall, opt.Patience = 10*time.Second, 30*time.Second
		s := bucket.New(svc.Backend(), opt)
		svc.Set("x", []byte("x"), nil)
		svc.Fail(func(backendtest.Call) backendtest.Fault { return backendtest.Fault{Stall: true} })
		began := time.Now()
		_, err := s.Stat(t.Context(), "x")
		if took := time.Since(began); problem.Of(err) != problem.StoreAway || took < 20*time.Second || took > 50*time.Second {
			t.Errorf("Stat: got %v after %v, want %s after half a minute", err, took, problem.StoreAway)
		}
		if n := len(svc.Calls()); n < 3 || n > 5 {
			t.Errorf("got %d tries, want 3 to 5", n)
		}
		b, err := s.Batch(t.Context(), "b-1")
		if err != nil {
			t.Fatal(err)
		}
		svc.Fail(func(c backendtest.Call) backendtest.Fault { return backendtest.Fault{Stall: c.Op == "PutPart"} })
		w := lifeItems()[0]
		st, err := b.Stage(t.Context(), w.item)
		if err != nil {
			t.Fatal(err)
		}
		p, err := st.Part(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		if _, err = p.Write(w.data[:1000]); problem.Of(err) != problem.StoreAway || time.Since(began) != opt.Stall {
			t.Errorf("Write: got %v after %v, want %s after %v", err, time.Since(began), problem.StoreAway, opt.Stall)
		}
		if err := p.Close(); problem.Of(err) != problem.StoreAway || st.Holds(0) {
			t.Errorf("Close: got %v and held %v, want %s", err, st.Holds(0), problem.StoreAway)
		}
	})
}

// TestSlowCallerIsNoStall: time in which the caller has nothing to write is not the service's.
func TestSlowCallerIsNoStall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := backendtest.New(backendtest.Options{})
		s := bucket.New(svc.Backend(), testOptions(""))
		b, err := s.Batch(t.Context(), "b-1")
		if err != nil {
			t.Fatal(err)
		}
		w := lifeItems()[0]
		st, err := b.Stage(t.Context(), w.item)
		if err != nil {
			t.Fatal(err)
		}
		p, err := st.Part(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for off := 0; off < part; off += part / 4 {
			<-time.After(time.Hour)
			if _, err := p.Write(w.data[off : off+part/4]); err != nil {
				t.Fatalf("Write after an hour: %v", err)
			}
		}
		if err := p.Close(); err != nil || !st.Holds(0) {
			t.Errorf("Close: %v", err)
		}
	})
}

// TestRetryAfterIsHonoured: the pause is what the service asks for, unless that is beyond patience.
func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := backendtest.New(backendtest.Options{})
		svc.Set("x", []byte("x"), nil)
		opt := testOptions("")
		opt.Patience = 30 * time.Second
		s := bucket.New(svc.Backend(), opt)
		first := len(svc.Calls())
		svc.Fail(func(c backendtest.Call) backendtest.Fault {
			if c.N == first {
				return backendtest.Fault{Err: &bucket.Away{After: 20 * time.Second, Err: errors.New("slow down")}}
			}
			return backendtest.Fault{}
		})
		began := time.Now()
		if _, err := s.Stat(t.Context(), "x"); err != nil || time.Since(began) != 20*time.Second {
			t.Errorf("got %v after %v, want success after 20 s", err, time.Since(began))
		}
		svc.Fail(func(backendtest.Call) backendtest.Fault {
			return backendtest.Fault{Err: &bucket.Away{After: time.Minute, Err: errors.New("slow down")}}
		})
		began = time.Now()
		if _, err := s.Stat(t.Context(), "x"); problem.Of(err) != problem.StoreAway || time.Since(began) != 0 {
			t.Errorf("got %v after %v, want %s at once", err, time.Since(began), problem.StoreAway)
		}
	})
}

// resized is a service whose answers to Get tell another size than Head's, under the same version.
type resized struct{ bucket.Backend }

func (b resized) Get(ctx context.Context, key string, version token.Version, off, n int64) (io.ReadCloser, bucket.Object, error) {
	body, o, err := b.Backend.Get(ctx, key, version, off, n)
	o.Size++
	return body, o, err
}

// TestSizeOfAnotherVersion is a service that looks twice for one answer, with a writer in between: what it sends cannot be told to be whole.
func TestSizeOfAnotherVersion(t *testing.T) {
	t.Parallel()
	svc := backendtest.New(backendtest.Options{})
	svc.Set("x", storetest.Content(1, 1000), nil)
	s := openSlow(resized{svc.Backend()}, nil)
	in, err := s.Stat(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), "x", in.Version)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Info(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(t, r, 0, 1000); problem.Of(err) != problem.Changed {
		t.Errorf("got %d bytes and %v, want %s", len(got), err, problem.Changed)
	}
	if err := r.Check(t.Context()); problem.Of(err) != problem.Changed {
		t.Errorf("Check: got %v, want %s", err, problem.Changed)
	}
}
