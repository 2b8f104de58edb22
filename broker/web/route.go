package web

import (
	"errors"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token/problem"
)

// A route is one operation of the surface.
type route struct {
	id, method, path, summary string
	status                    int      // of success; 0 is 200
	query                     []string // names of optional query parameters
	header                    []string // names of optional headers
	in, out                   any      // zero values of the bodies; nil is none
}

// none is the body of an operation that takes or gives none.
type none struct{}

// handle registers an operation whose request body is of type In and whose answer is of type Out.
func handle[In, Out any](s *Server, rt route, fn func(*http.Request, In) (Out, error)) {
	var in In
	var out Out
	if _, ok := any(in).(none); !ok {
		rt.in = in
	}
	if _, ok := any(out).(none); !ok {
		rt.out = out
	}
	if rt.status == 0 {
		rt.status = http.StatusOK
	}
	s.register(rt, func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := readBody(w, r, rt.in != nil, &in); err != nil {
			s.fail(w, r, err)
			return
		}
		out, err := fn(r, in)
		switch {
		case err != nil:
			s.fail(w, r, err)
		case rt.out == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			if l, ok := any(out).(located); ok {
				w.Header().Set("Location", l.location())
			}
			if t, ok := any(out).(tagged); ok {
				w.Header().Set("ETag", `"`+t.tag()+`"`)
			}
			s.write(w, r, rt.status, out)
		}
	})
}

// located is an answer that has an address of its own.
type located interface{ location() string }

// tagged is an answer whose ETag a change may name.
type tagged interface{ tag() string }

// register adds an operation to the mux and to the description.
func (s *Server) register(rt route, h http.HandlerFunc) {
	if rt.status == 0 {
		rt.status = http.StatusOK
	}
	if rt.out == nil && rt.status == http.StatusOK && rt.method == http.MethodPost {
		rt.status = http.StatusNoContent
	}
	reg := s.api.OpenAPI().Components.Schemas
	op := &huma.Operation{OperationID: rt.id, Method: rt.method, Path: rt.path, Summary: rt.summary, Responses: map[string]*huma.Response{}}
	for _, name := range pathNames(rt.path) {
		op.Parameters = append(op.Parameters, &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}})
	}
	for _, name := range rt.query {
		op.Parameters = append(op.Parameters, &huma.Param{Name: name, In: "query", Schema: &huma.Schema{Type: huma.TypeString}})
	}
	for _, name := range rt.header {
		op.Parameters = append(op.Parameters, &huma.Param{Name: name, In: "header", Schema: &huma.Schema{Type: huma.TypeString}})
	}
	if rt.in != nil {
		op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/json": {Schema: reg.Schema(reflect.TypeOf(rt.in), true, rt.id+"Request")}}}
	}
	good := &huma.Response{Description: http.StatusText(rt.status)}
	if rt.out != nil {
		good.Content = map[string]*huma.MediaType{"application/json": {Schema: reg.Schema(reflect.TypeOf(rt.out), true, rt.id+"Response")}}
	}
	op.Responses[strconv.Itoa(rt.status)] = good
	op.Responses["default"] = &huma.Response{Description: "A problem (RFC 9457)", Content: map[string]*huma.MediaType{
		"application/problem+json": {Schema: reg.Schema(reflect.TypeOf(api.Problem{}), true, "Problem")}}}
	s.api.OpenAPI().AddOperation(op)
	s.routes = append(s.routes, rt.method+" "+rt.path)
	s.api.Adapter().Handle(op, func(c huma.Context) {
		r, w := humago.Unwrap(c)
		h(w, r)
	})
}

// pathNames returns the names in braces of a path.
func pathNames(path string) []string {
	var out []string
	for i := 0; i < len(path); i++ {
		if path[i] != '{' {
			continue
		}
		end := i
		for path[end] != '}' {
			end++
		}
		out = append(out, path[i+1:end])
	}
	return out
}

// readBody decodes the body of a request into v; one that is not wanted must be empty.
func readBody(w http.ResponseWriter, r *http.Request, wanted bool, v any) error {
	limit := int64(api.MaxBodySize)
	if !wanted {
		limit = 0
	}
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime)); err != nil {
		return err
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large) && !wanted:
		return problem.New(problem.Malformed, "This path takes no body")
	case errors.As(err, &large):
		return problem.New(problem.TooLarge, "The body is larger than %d bytes", limit)
	case err != nil:
		return problem.Wrap(err, problem.Malformed, "The body did not arrive whole")
	case !wanted:
		return nil
	}
	return decode(data, v)
}

// wait reads the query parameter wait: a duration, at most api.MaxWait.
func wait(w http.ResponseWriter, r *http.Request) (time.Duration, error) {
	s := r.URL.Query().Get("wait")
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > api.MaxWait {
		return 0, problem.New(problem.Malformed, "The parameter wait is not a duration from 0s to %s", api.MaxWait)
	}
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d + answerTime)); err != nil {
		return 0, err
	}
	return d, nil
}

// integer reads a query parameter that is a number from 0 on; 0 if it is not there.
func integer(r *http.Request, name string) (int64, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, problem.New(problem.Malformed, "The parameter %s is not a number from 0 on", name)
	}
	return n, nil
}
