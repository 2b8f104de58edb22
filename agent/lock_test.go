package agent

import (
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token/problem"
)

// TestTwoAgentsOnOneStateDirectory checks that the second is refused, and let in once the first has gone.
func TestTwoAgentsOnOneStateDirectory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	second, err := Open(t.Context(), w.src.conf)
	if problem.Of(err) != problem.BadConfig || !strings.Contains(problem.As(err).Sentence(), "state directory") || second != nil {
		t.Fatalf("got %v, want %s about the state directory", err, problem.BadConfig)
	}
	w.src.stop()
	w.src.start()
}
