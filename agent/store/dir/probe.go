package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	probeRounds = 100
	probeFolder = "probe_" // no batch id has '_'
)

// Probe implements store.Store. In a folder of its own below .consign, which it
// removes, it lets two goroutines race for a name a hundred times, syncs, and looks whether
// modes and times are kept. A file system without hard links cannot be used, whatever a caller does with the error: there
// Publish fails.
func (s *Store) Probe(ctx context.Context) (store.Traits, error) {
	if err := ctx.Err(); err != nil {
		return store.Traits{}, err
	}
	all, err := s.staging()
	if err != nil {
		return store.Traits{}, err
	}
	defer all.Close()
	name, err := probeName(all)
	if err != nil {
		return store.Traits{}, writeError(err, hidden)
	}
	d, err := all.OpenDir(name)
	if err != nil {
		return store.Traits{}, writeError(err, hidden)
	}
	t, err := probe(ctx, d)
	s.looks.Store(problem.Of(err) == problem.NotExclusive)
	// What is left behind, if this fails, is in nobody's way.
	return t, errors.Join(err, empty(d, d.Remove), d.Close(), all.Remove(name))
}

// probeName makes the first folder that does not exist.
func probeName(all disk.FS) (string, error) {
	for i := range 100 {
		name := probeFolder + strconv.Itoa(i)
		if err := all.Mkdir(name, 0o700); !errors.Is(err, fs.ErrExist) {
			return name, err
		}
	}
	return "", fmt.Errorf("a hundred folders of earlier probes: %w", fs.ErrExist)
}

// probe measures in the folder d. With problem.NotExclusive the traits are whole all the same.
func probe(ctx context.Context, d disk.FS) (store.Traits, error) {
	f, err := d.OpenFile("a", disk.Create)
	if err != nil {
		return store.Traits{}, writeError(err, hidden)
	}
	defer f.Close()
	other, err := d.OpenFile("b", disk.Create)
	if err != nil {
		return store.Traits{}, writeError(err, hidden)
	}
	if err := other.Close(); err != nil {
		return store.Traits{}, err
	}
	t := store.Traits{Exclusive: "link", PartSize: token.ChunkSize, MaxParts: math.MaxInt32, Lists: true, Rereads: true}
	exclusive := races(ctx, d)
	if exclusive != nil {
		if problem.Of(exclusive) != problem.NotExclusive {
			return store.Traits{}, exclusive
		}
		t.Exclusive = ""
	}
	if err := errors.Join(f.SyncAll(), d.Sync()); err != nil {
		return store.Traits{}, fmt.Errorf("probing: %w", err)
	}
	when := time.Date(2001, 2, 3, 4, 5, 6, 789000, time.UTC)
	set := errors.Join(f.SetMode(0o640), f.SetTime(when))
	st, err := f.Stat()
	if err != nil {
		return store.Traits{}, fmt.Errorf("probing: %w", err)
	}
	t.Modes = set == nil && st.Mode == 0o640
	t.ModTimes = set == nil && st.MTime.Equal(when)
	return t, exclusive
}

func races(ctx context.Context, d disk.FS) error {
	for i := range probeRounds {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := race(d, "x"+strconv.Itoa(i)); err != nil {
			return err
		}
	}
	return nil
}

// race links two files to one name at once; exactly one may succeed.
func race(d disk.FS, name string) error {
	var errs [2]error
	var wg sync.WaitGroup
	for i, from := range []string{"a", "b"} {
		wg.Go(func() { errs[i] = d.Link(from, d, name) })
	}
	wg.Wait()
	winner := "a"
	for i, err := range errs {
		switch {
		case err == nil:
			winner = []string{"a", "b"}[i]
		case !errors.Is(err, fs.ErrExist):
			return problem.Wrap(err, problem.NotExclusive, "The file system of the store does not make hard links, by which objects are published.")
		}
	}
	if (errs[0] == nil) == (errs[1] == nil) {
		return problem.New(problem.NotExclusive, "Two writers at once were not told apart by the store.")
	}
	got, err := d.Lstat(name)
	want, err2 := d.Lstat(winner)
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("probing: %w", err)
	}
	if !got.Same(want) {
		return problem.New(problem.NotExclusive, "The store replaced a name that existed.")
	}
	return nil
}
