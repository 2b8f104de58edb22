package broker

import (
	"testing"
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestLifeThatCannotBeRenewed: a life that no renewal can keep up with is refused at the start, not found out by every transfer.
func TestLifeThatCannotBeRenewed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for life, good := range map[time.Duration]bool{
		0: true, time.Minute: true, 15 * time.Minute: true, 6 * time.Hour: true,
		-time.Second: false, time.Second: false, 59 * time.Second: false, 6*time.Hour + time.Second: false,
	} {
		conf := w.conf
		conf.CapabilityLife = life
		if err := conf.Check(); (err == nil) != good || err != nil && problem.Of(err) != problem.BadConfig {
			t.Errorf("a capability life of %s: got %v", life, err)
		}
	}
}

// TestAdministratorOfNobody: an administrator is a subscriber of a provider that the broker serves, or the broker does not start.
func TestAdministratorOfNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for id, good := range map[token.Identity]bool{
		"spiffe://north/subscriber/dave": true, "spiffe://hub/subscriber/dave": false, "spiffe://west/subscriber/dave": false, "spiffe://north/agent/n1": false, "dave": false,
	} {
		conf := w.conf
		conf.Space.Administrators = []token.Identity{id}
		if err := conf.Check(); (err == nil) != good || err != nil && problem.Of(err) != problem.BadConfig {
			t.Errorf("the administrator %q: got %v", id, err)
		}
	}
}
