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
	tidyAfter = 400 // rows, behind which the database is tidied in a rest
)

// A Pace lets adoptions work one at a time, in pieces, each with a rest behind it that is as long as the work: they take half of the time of
// whoever writes at most, and less where others write too. Its methods may be called concurrently.
type Pace struct {
	turn chan struct{} // holds one: it is somebody's turn, who alone may touch what follows
	rows int           // of the next piece
	done int           // rows since the last tidying
	tidy func(context.Context) error
}

// NewPace returns a Pace whose pieces begin small. tidy is called in a rest now and then, for what else would befall somebody's write.
func NewPace(tidy func(context.Context) error) *Pace {
	return &Pace{turn: make(chan struct{}, 1), rows: leastRows, tidy: tidy}
}

// Turn waits for its turn, calls work with how many rows the piece may have, and rests. It returns the error of work, that of ctx if it ends
// before work was called, or that of tidying: then work is done.
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
	rest := time.NewTimer(min(took, mostRest))
	defer rest.Stop()
	if p.done += p.rows; err == nil && p.done >= tidyAfter {
		p.done = 0
		err = p.tidy(ctx)
	}
	switch {
	case took < pieceTime/2:
		p.rows = min(p.rows+p.rows/4+1, mostRows)
	case took > pieceTime:
		p.rows = max(p.rows-p.rows/4, leastRows)
	}
	select {
	case <-rest.C:
	case <-ctx.Done():
	}
	return err
}
