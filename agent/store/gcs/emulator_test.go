package gcs_test

import (
	"testing"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/backendtest"
	"github.com/consign-transfer/consign/agent/store/gcs"
	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
)

// emulator starts the server, with a bucket "con".
func emulator(t *testing.T) *realstores.GCS {
	t.Helper()
	g, err := realstores.GCSEmulator(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := g.MakeBucket(t.Context(), "con"); err != nil {
		t.Fatal(err)
	}
	return g
}

// below is the prefix of the export, as the suite's tests have it.
const below = "p/"

// open opens a bucket at endpoint.
func open(t *testing.T, endpoint, name string) bucket.Backend {
	t.Helper()
	b, err := gcs.NewBackend(gcs.Config{Endpoint: endpoint, Bucket: name, Prefix: below})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestConformance(t *testing.T) {
	t.Parallel()
	g := emulator(t)
	backendtest.Run(t, func(t *testing.T) backendtest.Subject {
		return backendtest.Subject{Backend: open(t, g.Endpoint, "con"), Below: below, NoBucket: open(t, g.Endpoint, "none")}
	})
}
