package link

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/consign-transfer/consign/token/problem"
)

// serveEcho answers every stream of lane with what it got, until the lane ends.
func serveEcho(t testing.TB, lane Lane) <-chan error {
	done := make(chan error, 1)
	go func() {
		for {
			s, err := lane.Accept(t.Context())
			if err != nil {
				done <- err
				return
			}
			b, err := io.ReadAll(s)
			if err == nil {
				_, err = s.Write(b)
			}
			if err == nil {
				err = s.CloseWrite()
			}
			if err != nil {
				s.Abandon(problem.Internal)
			}
		}
	}()
	return done
}

func ask(t testing.TB, lane Lane, request []byte) ([]byte, error) {
	t.Helper()
	s, err := lane.Open(t.Context())
	if err != nil {
		return nil, err
	}
	defer s.Abandon(problem.Cancelled)
	if _, err := s.Write(request); err != nil {
		return nil, err
	}
	if err := s.CloseWrite(); err != nil {
		return nil, err
	}
	return io.ReadAll(s)
}

func TestRoundTripOverLoopback(t *testing.T) {
	t.Parallel()
	a, b := realPair(t, Config{}).lanes(t)
	echo := serveEcho(t, b)
	want := bytes.Repeat([]byte("consign "), 1<<17)
	for range 100 { // more than MaxStreams, one after the other
		got, err := ask(t, a, want[:1000])
		if err != nil || !bytes.Equal(got, want[:1000]) {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
	}
	if got, err := ask(t, a, want); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v, want %d", len(got), err, len(want))
	}
	if got := a.TLS(); got.Version != 0x0304 || got.NegotiatedProtocol != "consign/1" || len(got.VerifiedChains) == 0 || got.DidResume {
		t.Errorf("got %+v, want TLS 1.3, our protocol, a verified chain", got)
	}
	if err := a.Close("", ""); err != nil {
		t.Fatal(err)
	}
	if err := <-echo; !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}
