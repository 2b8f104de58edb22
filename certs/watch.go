package certs

import (
	"context"
	"time"
)

// A Reloader reads its files again if they have changed, keeps what it has if they are
// not good, and reports whether something new is in use. Pair and Trust are Reloaders.
type Reloader interface {
	// Reload looks at the files once, now, and blocks until they are read. It may be called
	// concurrently with itself and with every use of what was loaded.
	Reload() (changed bool, err error)
}

var (
	_ Reloader = (*Pair)(nil)
	_ Reloader = (*Trust)(nil)
)

// Watch reloads each of rs once every period until ctx ends, one after another in the caller's
// goroutine. It tells onError of a failure when it begins and when its text changes, not at every period.
func Watch(ctx context.Context, every time.Duration, onError func(error), rs ...Reloader) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	told := make([]string, len(rs))
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for i, r := range rs {
			_, err := r.Reload()
			if err == nil {
				told[i] = ""
				continue
			}
			if text := err.Error(); text != told[i] {
				told[i] = text
				onError(err)
			}
		}
	}
}
