package gcs_test

import (
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
	"github.com/consign-transfer/consign/agent/store/storetest/sweeptest"
)

// behind starts a proxy that fails before a server.
func behind(t *testing.T, g *realstores.GCS) *realstores.Faults {
	t.Helper()
	f, err := realstores.NewFaults(t.Context(), realstores.SpeaksGCS, g.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func TestFaultAtEveryRequest(t *testing.T) {
	t.Parallel()
	g := emulator(t)
	sweeptest.Run(t, func(t *testing.T) sweeptest.Subject {
		f := behind(t, g)
		in := t.Name() + "/"
		return sweeptest.Subject{
			Faults: f,
			Open:   func(t testing.TB, prefix string) store.Store { return openStore(t, f.URL(), in+prefix) },
			Direct: func(t testing.TB, prefix string) store.Store { return openStore(t, g.Endpoint, in+prefix) },
		}
	})
}
