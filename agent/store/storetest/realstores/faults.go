package realstores

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"sync"
)

// An Action is what Faults does with one request.
type Action int

// The actions.
const (
	Forward     Action = iota // what a proxy does
	Refuse                    // answer with Status; the server never sees the request
	LoseRequest               // break the connection; the server never sees the request
	LoseAnswer                // let the server do it, then break the connection
	LieAfter                  // let the server do it, then answer with Status
)

// A Fault is what happens to one request. The zero Fault forwards it.
type Fault struct {
	Action Action
	// Status is of Refuse and LieAfter. The body is what the protocol has for it,
	// such as the code SlowDown for 503 of S3. 200 is an S3 answer that turns out to be
	// an error when it is read, as CompleteMultipartUpload may give.
	Status int
	// RetryAfter is the header's value in seconds; nil leaves it out.
	RetryAfter *int
}

// A Call is one request that came by, in the order in which they came.
type Call struct {
	N      int    // from 1, of all requests
	Kind   string // name of the operation in the protocol, such as UploadPart
	Nth    int    // from 1, of those of its kind
	Method string
	Path   string // escaped
	Query  string
	Fault  Fault
	Status int // of the answer; 0 if none was given, or not yet
}

// A Plan says what happens to a request. Calls of one plan never overlap. It must not
// read the request's body.
type Plan func(c Call, r *http.Request) Fault

// At returns the plan that does f to the nth request of a kind, from 1, and
// forwards all others.
func At(kind string, nth int, f Fault) Plan {
	return func(c Call, _ *http.Request) Fault {
		if c.Kind == kind && c.Nth == nth {
			return f
		}
		return Fault{}
	}
}

// Faults is a proxy on loopback in front of a store. It forwards everything as
// it came, so that signatures hold, but what its plan says otherwise. A test learns
// from Requests which calls there are, and then runs once for each call and
// fault. Its methods may be called concurrently.
type Faults struct {
	protocol Protocol
	front    *front
	back     *httputil.ReverseProxy

	mu    sync.Mutex // guards what follows, and is held while plan runs
	plan  Plan
	epoch int // number of plans so far
	calls []Call
	kinds map[string]int
}

// NewFaults starts a proxy in front of endpoint, http://host:port and whatever
// follows, which URL gives back with another host. It forwards everything until Plan
// says otherwise, and serves until Close.
func NewFaults(ctx context.Context, protocol Protocol, endpoint string) (*Faults, error) {
	target, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("reading the endpoint: %w", err)
	}
	l, err := listen(ctx)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{DisableCompression: true}
	f := &Faults{protocol: protocol, back: forwarder(target, transport), kinds: map[string]int{}}
	f.front = serveOn(l, f, transport)
	f.front.url += target.EscapedPath()
	return f, nil
}

// URL returns the endpoint to give to a client.
func (f *Faults) URL() string { return f.front.url }

// Close breaks all connections and waits until nothing is forwarded.
func (f *Faults) Close() error { return f.front.close() }

// Plan sets what happens from the next request on, and forgets the requests so
// far. nil forwards everything.
func (f *Faults) Plan(p Plan) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan, f.calls, f.kinds = p, nil, map[string]int{}
	f.epoch++
}

// Requests returns all requests since Plan, in the order in which they came.
func (f *Faults) Requests() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// Count returns the number of requests of a kind since Plan.
func (f *Faults) Count(kind string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kinds[kind]
}

// ServeHTTP implements http.Handler.
func (f *Faults) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call, answered := f.note(r)
	switch fault := call.Fault; fault.Action {
	case LoseRequest:
		panic(http.ErrAbortHandler)
	case Refuse:
		// Read it first: who still sends might not see the answer.
		_, _ = io.Copy(io.Discard, r.Body)
		answered(fault.Status)
		f.answer(w, call, r)
	case LoseAnswer, LieAfter:
		// The client may be gone by now; that does not save it from the effect.
		lost := &discard{header: http.Header{}}
		f.back.ServeHTTP(lost, r.WithContext(context.WithoutCancel(r.Context())))
		if fault.Action == LoseAnswer {
			panic(http.ErrAbortHandler)
		}
		answered(fault.Status)
		f.answer(w, call, r)
	default:
		f.back.ServeHTTP(&watch{w, answered}, r)
	}
}

// note counts a request, and returns it with what says how it was answered.
func (f *Faults) note(r *http.Request) (Call, func(status int)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	kind := f.protocol.kind(r)
	f.kinds[kind]++
	c := Call{
		N: len(f.calls) + 1, Kind: kind, Nth: f.kinds[kind],
		Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery,
	}
	if f.plan != nil {
		c.Fault = f.plan(c, r)
	}
	f.calls = append(f.calls, c)
	epoch := f.epoch
	return c, func(status int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.epoch == epoch {
			f.calls[c.N-1].Status = status
		}
	}
}

// answer writes the error of a fault.
func (f *Faults) answer(w http.ResponseWriter, c Call, r *http.Request) {
	if c.Fault.RetryAfter != nil {
		w.Header().Set("Retry-After", strconv.Itoa(*c.Fault.RetryAfter))
	}
	f.protocol.refuse(w, r, c)
}

// discard is where an answer goes that nobody gets.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

// watch tells the status of an answer before it is given.
type watch struct {
	http.ResponseWriter
	answered func(status int)
}

// WriteHeader implements http.ResponseWriter.
func (w *watch) WriteHeader(status int) {
	if status >= http.StatusOK {
		w.answered(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *watch) Unwrap() http.ResponseWriter { return w.ResponseWriter }
