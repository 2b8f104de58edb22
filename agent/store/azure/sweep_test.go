package azure_test

import (
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
	"github.com/consign-transfer/consign/agent/store/storetest/sweeptest"
)

// behind starts a proxy that fails before a server.
func behind(t *testing.T, a *realstores.Azure) *realstores.Faults {
	t.Helper()
	f, err := realstores.NewFaults(t.Context(), realstores.SpeaksAzure, a.Endpoint)
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
	a := azurite(t)
	sweeptest.Run(t, func(t *testing.T) sweeptest.Subject {
		f := behind(t, a)
		in := t.Name() + "/"
		return sweeptest.Subject{
			Faults: f,
			Open:   func(t testing.TB, prefix string) store.Store { return openStore(t, a, f.URL(), in+prefix) },
			Direct: func(t testing.TB, prefix string) store.Store { return openStore(t, a, a.Endpoint, in+prefix) },
		}
	})
}
