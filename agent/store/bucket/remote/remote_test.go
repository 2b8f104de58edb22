package remote_test

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/remote"
	"github.com/consign-transfer/consign/token/problem"
)

func TestBodyIsReadOnce(t *testing.T) {
	t.Parallel()
	sum := crc32.NewIEEE()
	b := remote.NewBody(strings.NewReader("hello and more"), 5, sum)
	for range 2 { // as clients find out the size, and set it to its start before they send
		if n, err := b.Seek(0, io.SeekEnd); n != 5 || err != nil {
			t.Fatalf("got the size %d (%v), want 5", n, err)
		}
		if _, err := b.Read(make([]byte, 1)); err == nil {
			t.Fatal("read at the end, where nothing was read yet")
		}
		if n, err := b.Seek(0, io.SeekStart); n != 0 || err != nil {
			t.Fatalf("got %d (%v), want the start", n, err)
		}
	}
	got, err := io.ReadAll(iotest.OneByteReader(b))
	if err != nil || string(got) != "hello" || sum.Sum32() != crc32.ChecksumIEEE([]byte("hello")) {
		t.Errorf("got %q (%v) and %x", got, err, sum.Sum32())
	}
	for _, whence := range []int{io.SeekStart, io.SeekCurrent} {
		if _, err := b.Seek(-2, whence); err == nil {
			t.Error("set back after it was read")
		}
	}
	if _, err := b.Seek(0, io.SeekStart); err == nil {
		t.Error("set to its start after it was read")
	}
	if whole, err := b.End(); !whole || err != nil {
		t.Errorf("End: got %v %v, want that all was read", whole, err)
	}
}

func TestBodyThatEndsEarly(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for _, tc := range []struct {
		r    io.Reader
		want error
	}{
		{strings.NewReader("hell"), io.ErrUnexpectedEOF},
		{iotest.DataErrReader(strings.NewReader("hell")), io.ErrUnexpectedEOF},
		{io.MultiReader(strings.NewReader("hell"), iotest.ErrReader(boom)), boom},
	} {
		b := remote.NewBody(tc.r, 5, nil)
		got, err := io.ReadAll(b)
		if string(got) != "hell" || !errors.Is(err, tc.want) {
			t.Errorf("got %q (%v), want %v", got, err, tc.want)
		}
		if whole, err := b.End(); whole || !errors.Is(err, tc.want) {
			t.Errorf("End: got %v %v, want %v", whole, err, tc.want)
		}
	}
	b := remote.NewBody(iotest.DataErrReader(strings.NewReader("hello")), 5, nil)
	if got, err := io.ReadAll(b); string(got) != "hello" || err != nil {
		t.Errorf("got %q (%v)", got, err)
	}
}

// TestEndWaitsForRead: nothing is read from the owner's reader once End has returned.
func TestEndWaitsForRead(t *testing.T) {
	t.Parallel()
	r, w := io.Pipe()
	b := remote.NewBody(r, 10, nil)
	began, read, ended := make(chan struct{}), make(chan error, 1), make(chan struct{})
	go func() {
		close(began)
		_, err := b.Read(make([]byte, 4))
		read <- err
	}()
	<-began
	if _, err := w.Write([]byte("ab")); err != nil { // returns when it was read
		t.Fatal(err)
	}
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	go func() { _, err := b.Read(make([]byte, 4)); read <- err }()
	go func() { _, _ = b.End(); close(ended) }()
	if err := w.Close(); err != nil { // wakes the Read, if it came first
		t.Fatal(err)
	}
	<-ended
	if err := <-read; err == nil {
		t.Error("the Read that End has waited for, or has forestalled, got nothing and no error")
	}
	if _, err := b.Read(make([]byte, 4)); err == nil {
		t.Error("read after End")
	}
}

func TestAfter(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "0": 0, "-1": 0, "x": 0, "1.5": 0, "99999999999999999999": 0,
		"Mon, 02 Jan 2006 15:04:05 GMT": 0,
	} {
		if got := remote.After(http.Header{"Retry-After": {text}}); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
	at := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	if got := remote.After(http.Header{"Retry-After": {at}}); got < 59*time.Minute || got > time.Hour {
		t.Errorf("%q: got %v, want an hour", at, got)
	}
}

func TestTotal(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"bytes 0-9/10": 10, "bytes */10": 10, "bytes 0-9/*": -1, "": -1, "bytes 0-9": -1, "bytes 0-9/-1": -1, "bytes 0-9/99999999999999999999": -1,
	} {
		got, err := remote.Total(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: got %d (%v), want %d", text, got, err, want)
		}
	}
}

func TestLost(t *testing.T) {
	t.Parallel()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	var away *bucket.Away
	if err := remote.Lost(t.Context(), io.ErrUnexpectedEOF); !errors.As(err, &away) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want away", err)
	}
	if err := remote.Lost(over, io.ErrUnexpectedEOF); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's", err)
	}
	if err := remote.Lost(t.Context(), problem.New(problem.Taken, "x")); problem.Of(err) != problem.Taken {
		t.Errorf("got %v, want what it was", err)
	}
}

func TestTransportRefusesNoCertificates(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 10), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ca := range []string{file, file + ".none"} {
		if _, err := remote.Transport(ca); problem.Of(err) != problem.BadConfig {
			t.Errorf("%s: got %v, want bad configuration", ca, err)
		}
	}
	tr, err := remote.Transport("")
	if err != nil || !tr.DisableCompression || tr.TLSClientConfig == nil || tr.ForceAttemptHTTP2 {
		t.Errorf("got %+v (%v)", tr, err)
	}
}
