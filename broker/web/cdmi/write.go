package cdmi

import (
	"net/http"
	"strings"

	"github.com/consign-transfer/consign/broker"
	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/token/problem"
)

// put answers a PUT: it makes a container, or changes metadata of something that is there.
func (h *Handler) put(w http.ResponseWriter, q request) (answer, error) {
	t, err := h.writable(q)
	if err != nil {
		return answer{}, err
	}
	k := acl.Object
	if q.address.slash {
		k = acl.Container
	}
	media := typeOf(k)
	wish := broker.Wish{At: t.at, Kind: k, Make: k == acl.Container}
	if err := checkConditions(q, conditions...); err != nil {
		return answer{}, err
	}
	if wish.IfMatch, err = h.conf.IfMatch(q.Request); err != nil {
		return answer{}, err
	}
	if t.exact && t.kind != k {
		return answer{}, problem.New(problem.Malformed, "The object id is that of a container, whose path ends in '/'")
	}
	if wish.Named, err = parseNamed(q.URL.RawQuery); err != nil {
		return answer{}, err
	}
	data, err := body(w, q.Request)
	if err != nil {
		return answer{}, err
	}
	switch {
	case q.version == "" && k == acl.Object:
		return answer{}, noValue()
	case q.version == "" && (len(data) > 0 || q.URL.RawQuery != ""):
		return answer{}, problem.New(problem.Malformed, "A container is made by plain HTTP without a body; with metadata it is made by CDMI, which has the header %s", versionHeader)
	case q.version != "":
		if err := checkContent(q.Header, typeOf(k)); err != nil {
			return answer{}, err
		}
		if media, err = acceptable(q.Header, typeOf(k)); err != nil {
			return answer{}, err
		}
	}
	if wish.Metadata, err = parseBody(data, k); err != nil {
		return answer{}, err
	}
	made, err := h.conf.Writer.Put(q.Context(), q.peer, wish, q.now)
	if t.byID {
		err = hideID(err)
	}
	switch {
	case err != nil:
		return answer{}, err
	case !made:
		return answer{status: http.StatusNoContent}, nil
	case q.version == "":
		return answer{status: http.StatusCreated}, nil
	}
	return h.created(q, t, media), nil
}

// created shows a container that was made. Whoever gave it a list that keeps its maker from reading gets nothing of it, and it is made all the same.
func (h *Handler) created(q request, t target, media string) answer {
	look := broker.Look{At: t.at, Kind: acl.Container, Parts: selection{}.parts(containerFields)}
	seen, err := h.conf.Reader.See(q.Context(), q.peer, look, q.now)
	if err != nil {
		seen = broker.Sight{}
	}
	return answer{status: http.StatusCreated, media: media, doc: h.placeDocument(t, acl.Container, selection{}, look, seen), etag: quotedTag(seen.ETag)}
}

// remove answers a DELETE.
func (h *Handler) remove(q request) (answer, error) {
	t, err := h.writable(q)
	if err != nil {
		return answer{}, err
	}
	if q.URL.RawQuery != "" {
		return answer{}, problem.New(problem.NotOffered, "No part of anything can be deleted")
	}
	if err := checkConditions(q, append([]string{"If-Match"}, conditions...)...); err != nil {
		return answer{}, err
	}
	if !q.address.slash {
		return h.removeUnslashed(q, t)
	}
	if len(t.names) == 2 {
		return answer{}, problem.New(problem.NotOffered, "A root container is made and removed by the operator who exports it")
	}
	err = h.conf.Writer.EraseContainer(q.Context(), q.peer, t.at, q.now)
	if t.byID {
		err = hideID(err)
	}
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusNoContent}, nil
}

// removeUnslashed says of a name without a slash at its end that data objects are not deleted here, or where the container is. It says so to those
// alone who may see that it is there.
func (h *Handler) removeUnslashed(q request, t target) (answer, error) {
	if len(t.names) > 2 && (!t.exact || t.kind == acl.Object) {
		err := h.sees(q, t, acl.Object)
		switch {
		case err == nil:
			return answer{}, problem.New(problem.NotOffered, "Data objects are not deleted here")
		case t.exact || problem.Of(err) == problem.NotPermitted:
			return answer{}, err
		}
	}
	if err := h.sees(q, t, acl.Container); err != nil {
		return answer{}, err
	}
	return h.redirect(q), nil
}

// writable finds what an address means, if something of it may be written at all.
func (h *Handler) writable(q request) (target, error) {
	t, err := h.resolve(q)
	switch {
	case err != nil:
		return target{}, err
	case t.in == claims:
		return target{}, problem.New(problem.NotOffered, "Capabilities are what they are and cannot be written")
	case len(t.names) < 2:
		if len(t.names) > 0 && strings.HasPrefix(t.names[0], reserved) {
			return target{}, problem.New(problem.BadName, "The name %s begins with %s, which is reserved", problem.Quote(t.names[0]), reserved)
		}
		return target{}, problem.New(problem.NotOffered, "The root and the providers are the broker's operator's; containers are made in what a provider exports")
	case t.exact && t.kind == acl.Object && q.address.slash:
		return target{}, noID()
	}
	if t.byID {
		return t, checkOwn(q.address.names)
	}
	return t, checkOwn(t.names[2:])
}

// conditions are headers that make a request depend on what is there, beyond If-Match of a PUT. To pass over one would be to do what was not asked for.
var conditions = []string{"If-None-Match", "If-Modified-Since", "If-Unmodified-Since"}

// checkConditions refuses those of headers that a request has.
func checkConditions(q request, headers ...string) error {
	for _, name := range headers {
		if len(q.Header.Values(name)) > 0 {
			return problem.New(problem.NotOffered, "The header %s is not offered for the method %s", name, q.Method)
		}
	}
	return nil
}
