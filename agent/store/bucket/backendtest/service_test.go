package backendtest

import (
	"testing"
	"time"
)

func TestService(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]Options{
		"uploads": {}, "named": {Named: true}, "unlisted": {Unlisted: true}, "twofold": {Twofold: true, Page: 7}, "expiring": {Named: true, Expire: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			Run(t, func(*testing.T) Subject { return Subject{Backend: New(opt).Backend()} })
		})
	}
}
