package cdmi

import (
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/token/problem"
)

// The types of what is served (RFC 6208), which are also the values of the field objectType.
const (
	typeObject     = "application/cdmi-object"
	typeContainer  = "application/cdmi-container"
	typeCapability = "application/cdmi-capability"
)

// asJSON is what version 1.1.1 allows behind a type.
const asJSON = "+json"

// versionHeader names the versions that a client speaks, and the one that it is answered in.
const versionHeader = "X-CDMI-Specification-Version"

// versions are those that are spoken, newest first.
var versions = []string{"1.1.1", "1.1", "1.0.2", "1.0.1"}

// negotiate returns the newest version that the client speaks too, or problem.NotOffered.
func negotiate(h http.Header) (string, error) {
	asked := h.Values(versionHeader)
	if len(asked) == 0 {
		return "", problem.New(problem.Malformed, "The header %s is missing; versions that are spoken here are %s", versionHeader, strings.Join(versions, ", "))
	}
	var theirs []string
	for v := range strings.SplitSeq(strings.Join(asked, ","), ",") {
		theirs = append(theirs, strings.Trim(v, " \t"))
	}
	for _, v := range versions {
		if slices.Contains(theirs, v) {
			return v, nil
		}
	}
	return "", problem.New(problem.NotOffered, "The versions %s are none of those that are spoken here: %s", problem.Quote(strings.Join(theirs, ", ")), strings.Join(versions, ", "))
}

// typeOf is the type of something of kind k.
func typeOf(k acl.Kind) string {
	if k == acl.Container {
		return typeContainer
	}
	return typeObject
}

// isCDMI reports whether a media type is one of the standard's.
func isCDMI(media string) bool {
	switch strings.TrimSuffix(media, asJSON) {
	case typeObject, typeContainer, typeCapability, "application/cdmi-domain", "application/cdmi-queue":
		return true
	}
	return false
}

// speaksCDMI reports whether a request is one of CDMI, and not one of plain HTTP: by its version header, or a type of CDMI in what it has or wants.
func speaksCDMI(h http.Header) bool {
	if len(h.Values(versionHeader)) > 0 {
		return true
	}
	if media, _, err := mime.ParseMediaType(h.Get("Content-Type")); err == nil && isCDMI(media) {
		return true
	}
	return slices.ContainsFunc(ranges(h), func(r mediaRange) bool { return isCDMI(r.media) })
}

// A mediaRange is one element of an Accept header.
type mediaRange struct {
	media string
	q     float64
}

// ranges reads the Accept header; what cannot be read accepts nothing.
func ranges(h http.Header) []mediaRange {
	var out []mediaRange
	for element := range strings.SplitSeq(strings.Join(h.Values("Accept"), ","), ",") {
		media, params, err := mime.ParseMediaType(element)
		if err != nil {
			continue
		}
		q := 1.0
		if s, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(s, 64); err != nil || !(q >= 0 && q <= 1) {
				q = 0
			}
		}
		out = append(out, mediaRange{media, q})
	}
	return out
}

// acceptable returns in which of its two spellings the client takes an answer of a type, or problem.NotAcceptable.
func acceptable(h http.Header, want string) (string, error) {
	if len(h.Values("Accept")) == 0 {
		return want, nil
	}
	rs := ranges(h)
	plain, suffixed := quality(rs, want), quality(rs, want+asJSON)
	switch {
	case plain == 0 && suffixed == 0:
		return "", problem.New(problem.NotAcceptable, "The answer is of type %s, which the header Accept leaves out", want)
	case suffixed > plain:
		return want + asJSON, nil
	}
	return want, nil
}

// quality is how much a client wants a media type: the most particular range that has it decides.
func quality(rs []mediaRange, media string) float64 {
	best, q := 0, 0.0
	for _, r := range rs {
		particular := 0
		switch r.media {
		case media:
			particular = 3
		case "application/*":
			particular = 2
		case "*/*":
			particular = 1
		}
		if particular > best {
			best, q = particular, r.q
		}
	}
	return q
}

// checkContent refuses a body that does not say that it is of the type want.
func checkContent(h http.Header, want string) error {
	kind := h.Get("Content-Type")
	if kind == "" {
		return problem.New(problem.Malformed, "The request does not say of which type its body is; what is wanted is %s", want)
	}
	media, params, err := mime.ParseMediaType(kind)
	if err != nil {
		return problem.Wrap(err, problem.Malformed, "The header Content-Type cannot be read")
	}
	if strings.TrimSuffix(media, asJSON) != want {
		return problem.New(problem.Malformed, "The body is of type %s, and what is wanted is %s", problem.Quote(media), want)
	}
	if c, ok := params["charset"]; ok && !strings.EqualFold(c, "utf-8") {
		return problem.New(problem.Malformed, "The body is in %s; JSON is in UTF-8", problem.Quote(c))
	}
	return nil
}
