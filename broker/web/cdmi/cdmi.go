// Package cdmi serves CDMI (ISO/IEC 17826; versions 1.0.1 to 1.1.1) over HTTP, below Prefix: what containers and data objects are and what is kept about them, by
// name and by object id, and what can be done with them.
//
//	/cdmi/                                  the root, which holds the providers
//	/cdmi/PROVIDER/CONTAINER/NAME           a data object
//	/cdmi/PROVIDER/CONTAINER/NAME/          a container; without the slash at its end it is redirected to
//	/cdmi/cdmi_objectid/ID[/NAME]           the same by id
//	/cdmi/cdmi_capabilities/[...]           what is offered
//
// It guarantees that a request has exactly one reading: a field or item that is there twice, a name that is reserved, a part of a query that does not exist
// are refused by name, and a body is bounded. It guarantees the statuses of the standard's tables. A capability is claimed only for what is so; whatever
// the standard has beyond is refused with 400, the value of a data object among it.
//
// It knows the caller from elsewhere, decides nothing and keeps nothing: whether somebody may, and what is so, says the Reader and Writer of its Config. Domains,
// queues, snapshots, exports, references, serialization and multipart bodies are not served.
package cdmi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/consign-transfer/consign/broker"
	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Prefix is what every path of CDMI begins with.
const Prefix = "/cdmi/"

// How long the body of a request may take, and an answer.
const (
	bodyTime   = 60 * time.Second
	answerTime = 60 * time.Second
)

// A Reader says what there is and what a caller may see of it.
type Reader interface {
	// Providers returns the providers and the root containers of each.
	Providers(context.Context) (api.Page[api.ProviderInfo], error)
	// PlaceOf returns what has an object id: problem.Hidden if nothing has it that the caller may see.
	PlaceOf(context.Context, certs.Peer, space.ObjectID, time.Time) (token.Location, acl.Kind, error)
	// See returns what a caller may see of a place. It fails if that is nothing of what is asked for.
	See(context.Context, certs.Peer, broker.Look, time.Time) (broker.Sight, error)
}

// A Writer changes what there is.
type Writer interface {
	// Put changes metadata, and makes a container where it is wished for and there is none; made says so.
	Put(context.Context, certs.Peer, broker.Wish, time.Time) (made bool, err error)
	// EraseContainer removes a container that holds nothing.
	EraseContainer(context.Context, certs.Peer, token.Location, time.Time) error
}

// Config is what a Handler needs. All of it is required but Limits and Enterprise.
type Config struct {
	Reader Reader
	Writer Writer
	// Self is the broker's identity: ids of what is not kept anywhere are made of it.
	Self token.Identity
	// Limits are those of user metadata.
	Limits space.UserLimits
	// Enterprise is IANA's number in ids that are made here.
	Enterprise uint32
	// Caller says who makes a request that was let through.
	Caller func(context.Context) certs.Peer
	// IfMatch reads the one tag of that header, or nothing.
	IfMatch func(*http.Request) (string, error)
	// Fail answers with the problem of an error under an HTTP status.
	Fail func(http.ResponseWriter, *http.Request, error, int)
}

// A Handler answers every path that begins with Prefix. It stands behind what knows the caller.
type Handler struct{ conf Config }

// New returns the handler.
func New(conf Config) (*Handler, error) {
	if conf.Reader == nil || conf.Writer == nil || conf.Self == "" || conf.Caller == nil || conf.IfMatch == nil || conf.Fail == nil {
		return nil, errors.New("making the handler of CDMI: all but limits and enterprise is required")
	}
	if _, err := space.NewObjectID(conf.Enterprise, []byte{0}); err != nil {
		return nil, err
	}
	return &Handler{conf}, nil
}

// An answer is what a request that succeeds is answered with.
type answer struct {
	status   int
	location string // of a redirection
	media    string // of doc
	doc      document
	etag     string
}

// A request is one that was read as far as its head goes.
type request struct {
	*http.Request
	peer    certs.Peer
	address address
	now     time.Time
	version string // of CDMI; empty for plain HTTP
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, version, err := h.serve(w, r)
	if err != nil {
		h.conf.Fail(w, r, err, statusOf(err))
		return
	}
	for name, value := range map[string]string{versionHeader: version, "Location": a.location, "ETag": a.etag, "Content-Type": a.media} {
		if value != "" {
			w.Header().Set(name, value)
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime)) // of what waited for an agent; the one of before holds otherwise
	w.WriteHeader(a.status)
	if a.media != "" && r.Method != http.MethodHead {
		_, _ = w.Write(a.doc.bytes()) // to who has gone nothing can be told
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) (a answer, version string, err error) {
	q := request{Request: r, peer: h.conf.Caller(r.Context()), now: time.Now()}
	if q.address, err = parseAddress(r.URL.EscapedPath()); err != nil {
		return answer{}, "", err
	}
	if len(q.address.names) == 0 && q.address.in == places && !q.address.slash {
		return h.redirect(q), "", nil
	}
	if speaksCDMI(r.Header) {
		if q.version, err = negotiate(r.Header); err != nil {
			return answer{}, "", err
		}
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		a, err = h.read(q)
	case http.MethodPut:
		a, err = h.put(w, q)
	case http.MethodDelete:
		a, err = h.remove(q)
	default:
		err = problem.New(problem.NotOffered, "The method %s is not offered", problem.Quote(r.Method))
	}
	return a, q.version, err
}

// redirect sends a client to the name with a slash at its end, which is that of a container.
func (h *Handler) redirect(q request) answer {
	to := "https://" + q.Host + q.URL.EscapedPath() + "/"
	if q.URL.RawQuery != "" {
		to += "?" + q.URL.RawQuery
	}
	return answer{status: http.StatusMovedPermanently, location: to}
}

// body reads the body of a request, which is bounded in size and time.
func body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, err
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, problem.New(problem.TooLarge, "The body is larger than %d bytes", maxBody)
	case err != nil:
		return nil, problem.Wrap(err, problem.Malformed, "The body did not arrive whole")
	}
	return data, nil
}

// statusOf is the status of a failure. It is that of the table of problems, but for what the standard calls an invalid parameter.
func statusOf(err error) int {
	switch code := problem.Of(err); code {
	case problem.TooLarge:
		return http.StatusBadRequest
	default:
		return problem.Lookup(code).HTTP
	}
}
