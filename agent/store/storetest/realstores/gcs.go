package realstores

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
)

// A GCS is a running server of the JSON API of Google Cloud Storage. It asks for
// no credentials.
type GCS struct {
	*Process
	Endpoint string // http://host:port, below which are /storage/v1 and /upload/storage/v1
	front    *front // nil if there is none
}

// FakeGCS starts fake-gcs-server with everything in memory, as it is: compose
// and other writes ignore preconditions. It is a store that must be refused.
func FakeGCS(ctx context.Context, dir string) (*GCS, error) {
	p, addr, err := startFakeGCS(ctx, dir, "")
	if err != nil {
		return nil, err
	}
	return &GCS{Process: p, Endpoint: "http://" + addr}, nil
}

// GCSEmulator starts fake-gcs-server behind a proxy in this process that does
// what it leaves out. The package doc says what that is.
func GCSEmulator(ctx context.Context, dir string) (*GCS, error) {
	l, err := listen(ctx)
	if err != nil {
		return nil, err
	}
	p, addr, err := startFakeGCS(ctx, dir, "http://"+l.Addr().String())
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	h := newHonest(&url.URL{Scheme: "http", Host: addr})
	f := serveOn(l, h, h.transport)
	return &GCS{Process: p, Endpoint: f.url, front: f}, nil
}

func startFakeGCS(ctx context.Context, dir, external string) (*Process, string, error) {
	// A bucket that only we know tells our server from another that may have got its port.
	mark := "started-" + secret()
	seed := filepath.Join(dir, "seed")
	if err := makeFolder(filepath.Join(seed, mark)); err != nil {
		return nil, "", err
	}
	return start(ctx, launch{
		name: fakeGCS, dir: dir,
		args: func(program, addr string) []string {
			host, port, _ := net.SplitHostPort(addr) // freePort made it
			url := external
			if url == "" {
				url = "http://" + addr
			}
			return []string{
				program, "-scheme", "http", "-host", host, "-port", port, "-backend", "memory",
				"-external-url", url, "-data", seed, "-log-level", "warn",
			}
		},
		ready: func(ctx context.Context, addr string) error {
			_, err := (&GCS{Endpoint: "http://" + addr}).Do(ctx, http.MethodGet, "/storage/v1/b/"+mark, nil)
			return err
		},
	})
}

// Stop closes the proxy, if there is one, and ends the server as Process.Stop does.
func (g *GCS) Stop() error { return errors.Join(g.closeFront(), g.Process.Stop()) }

// Kill closes the proxy, if there is one, and ends the server as Process.Kill does.
func (g *GCS) Kill() error { return errors.Join(g.closeFront(), g.Process.Kill()) }

func (g *GCS) closeFront() error {
	if g.front == nil {
		return nil
	}
	return g.front.close()
}

// MakeBucket makes a bucket.
func (g *GCS) MakeBucket(ctx context.Context, name string) error {
	body, err := json.Marshal(map[string]string{"name": name})
	if err != nil {
		return fmt.Errorf("encoding the bucket: %w", err)
	}
	if _, err := g.Do(ctx, http.MethodPost, "/storage/v1/b?project=consign", body, "Content-Type", "application/json"); err != nil {
		return fmt.Errorf("making bucket %s: %w", name, err)
	}
	return nil
}

// Do sends one request and returns the answer and all that it holds. target is
// a path that is escaped, with an optional query; head are pairs of name and value. An
// answer from 300 up is a *Refusal.
func (g *GCS) Do(ctx context.Context, method, target string, body []byte, head ...string) (*Answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, g.Endpoint+target, strings.NewReader(string(body)))
	if err != nil {
		return nil, fmt.Errorf("preparing %s %s: %w", method, target, err)
	}
	for i := 0; i+1 < len(head); i += 2 {
		req.Header.Set(head[i], head[i+1])
	}
	req.Close = true // leave no goroutine of a connection behind
	return do(req)
}
