package adopt

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// TestTurnsAreOneAtATime has many work at once: never are two at it, and every one gets its turn.
func TestTurnsAreOneAtATime(t *testing.T) {
	t.Parallel()
	p := NewPace(func(context.Context) error { return nil })
	var mu sync.Mutex
	in, most, done := 0, 0, 0
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			err := p.Turn(context.Background(), func(rows int) error {
				mu.Lock()
				in++
				most = max(most, in)
				mu.Unlock()
				if rows < leastRows || rows > mostRows {
					t.Errorf("got a piece of %d rows", rows)
				}
				mu.Lock()
				defer mu.Unlock()
				in--
				done++
				return nil
			})
			if err != nil {
				t.Errorf("a turn: %v", err)
			}
		})
	}
	all.Wait()
	if most != 1 || done != 16 {
		t.Errorf("got %d at once and %d turns, want 1 and 16", most, done)
	}
}

func TestRestIsAsLongAsTheWork(t *testing.T) {
	t.Parallel()
	p := NewPace(func(context.Context) error { return nil })
	const work = 30 * time.Millisecond
	began := time.Now()
	for range 3 {
		if err := p.Turn(t.Context(), func(int) error {
			busy(t.Context(), work)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < 6*work {
		t.Errorf("three pieces of %s took %s, want twice the work at least", work, took)
	}
	if p.rows != leastRows {
		t.Errorf("after slow pieces one has %d rows, want %d", p.rows, leastRows)
	}
	for range 40 {
		if err := p.Turn(t.Context(), func(int) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if p.rows <= leastRows {
		t.Errorf("after quick pieces one has %d rows, want more than %d", p.rows, leastRows)
	}
}

// busy takes so long.
func busy(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}

// TestTidyingIsInTheRest tidies after so many rows, not in somebody's work, and does not hide that it fails.
func TestTidyingIsInTheRest(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	working, tidied, rows := false, 0, 0
	p := NewPace(func(context.Context) error {
		if tidied++; working {
			t.Error("tidied in the work")
		}
		return broken
	})
	for range 60 {
		err := p.Turn(t.Context(), func(n int) error {
			working = true
			defer func() { working = false }()
			rows += n
			return nil
		})
		if err != nil && !errors.Is(err, broken) {
			t.Fatal(err)
		}
		if (err != nil) != (rows >= tidyAfter) {
			t.Fatalf("after %d rows: got %v", rows, err)
		}
		if err != nil {
			rows = 0
		}
	}
	if tidied == 0 {
		t.Error("nothing was tidied")
	}
}

func TestTurnThatIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	p := NewPace(func(context.Context) error { return nil })
	ctx, cancel := context.WithCancel(t.Context())
	mine := errors.New("mine")
	err := p.Turn(t.Context(), func(int) error {
		cancel()
		if err := p.Turn(ctx, func(int) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("whose context had ended got %v", err)
		}
		return mine
	})
	if !errors.Is(err, mine) {
		t.Errorf("got %v, want the error of the work", err)
	}
}
