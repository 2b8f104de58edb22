package adopt

import (
	"context"
	"time"
)

// How much is entered at once.
const (
	leastRows = 16
	mostRows  = 512
	pieceTime = 12 * time.Millisecond // that a piece should take: others who write wait for one at most
	mostRest  = time.Second
)

// A Pace lets adoptions work one at a time, in pieces, each with a rest behind it that is as long as the work: they take half of the time of
// whoever writes at most, and less where others write too. Its methods may be called concurrently.
type Pace struct {
	turn chan struct{} // holds one: it is somebody's turn, who alone may touch rows
	rows int
}

// NewPace returns a Pace whose pieces begin small.
func NewPace() *Pace { return &Pace{turn: make(chan struct{}, 1), rows: leastRows} }

// Turn waits for its turn, calls work with how many rows the piece may have, and rests. It returns the error of work, or that of ctx if it ends
// before work was called.
func (p *Pace) Turn(ctx context.Context, work func(rows int) error) error {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-p.turn }()
	began := time.Now() //nolint:forbidigo // to measure how long the work takes, by which it rests
	err := work(p.rows)
	took := time.Since(began)
	switch {
	case took < pieceTime/2:
		p.rows = min(p.rows+p.rows/4+1, mostRows)
	case took > pieceTime:
		p.rows = max(p.rows-p.rows/4, leastRows)
	}
	rest := time.NewTimer(min(took, mostRest))
	defer rest.Stop()
	select {
	case <-rest.C:
	case <-ctx.Done():
	}
	return err
}
