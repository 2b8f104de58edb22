package realstores

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// A front is an HTTP server of this process on loopback, before a real one.
type front struct {
	url       string
	server    *http.Server
	transport *http.Transport // to the server behind
	served    chan struct{}   // closed when Serve has returned

	mu     sync.Mutex // guards closed, and busy from growing when it is
	closed bool
	busy   sync.WaitGroup // what is being answered
}

// serveOn starts a front on l that answers with h, which uses transport.
func serveOn(l net.Listener, h http.Handler, transport *http.Transport) *front {
	f := &front{url: "http://" + l.Addr().String(), transport: transport, served: make(chan struct{})}
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !f.enter() {
			panic(http.ErrAbortHandler)
		}
		defer f.busy.Done()
		h.ServeHTTP(w, r)
	})
	f.server = &http.Server{Handler: counted, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { // ends when close is called, which waits for it
		defer close(f.served)
		_ = f.server.Serve(l) // only ever ErrServerClosed: the listener is ours
	}()
	return f
}

// enter reports whether one more may be answered, and counts it.
func (f *front) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.busy.Add(1)
	}
	return !f.closed
}

// close breaks all connections and waits until nothing is served. It is idempotent.
func (f *front) close() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	err := f.server.Close()
	<-f.served
	f.busy.Wait()
	f.transport.CloseIdleConnections()
	if err != nil {
		return fmt.Errorf("closing the proxy at %s: %w", f.url, err)
	}
	return nil
}

// forwarder returns a proxy to target that changes neither the Host header nor
// path, query and body. It streams both ways, and keeps no more than a buffer.
func forwarder(target *url.URL, transport *http.Transport) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
			r.Out.URL.RawQuery = r.In.URL.RawQuery
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			// What broke behind breaks in front: no answer is made up.
			panic(http.ErrAbortHandler)
		},
	}
}
