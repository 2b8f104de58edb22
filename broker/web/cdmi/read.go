package cdmi

import (
	"crypto/sha256"
	"net/http"
	"slices"
	"strings"

	"github.com/consign-transfer/consign/broker"
	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A target is what an address comes to.
type target struct {
	in    realm    // places or claims
	names []string // below the root, or below cdmi_capabilities
	at    token.Location
	byID  bool
	kind  acl.Kind // of what an id alone names
	exact bool     // kind is known: an id alone names it
}

// fixedID is the id of what is not kept anywhere, by its names below the root.
func (h *Handler) fixedID(names ...string) space.ObjectID {
	sum := sha256.Sum256([]byte(string(h.conf.Self) + uri(names...)))
	id, err := space.NewObjectID(h.conf.Enterprise, sum[:16])
	if err != nil {
		panic("cdmi: internal error: New has checked this: " + err.Error())
	}
	return id
}

// resolve finds what an address means.
func (h *Handler) resolve(q request) (target, error) {
	a := q.address
	if a.in != ids {
		t := target{in: a.in, names: a.names}
		var err error
		if t.in == places && len(t.names) >= 2 {
			t.at, err = a.location()
		}
		return t, err
	}
	if t, ok, err := h.fixed(q); err != nil || ok {
		return t, err
	}
	at, kind, err := h.conf.Reader.PlaceOf(q.Context(), q.peer, a.id, q.now)
	if err != nil {
		return target{}, hideID(err)
	}
	if kind != acl.Container && len(a.names) > 0 {
		return target{}, noID()
	}
	t := target{byID: true, kind: kind, exact: len(a.names) == 0, at: beyond(at, a.names)}
	if t.at.Check() != nil {
		return target{}, noID() // it would be too long a name, and to say so would tell of the names above
	}
	t.names = pathOf(t.at)
	return t, nil
}

// fixed finds an id among those of what is not kept anywhere.
func (h *Handler) fixed(q request) (t target, ok bool, err error) {
	a := q.address
	for _, c := range claimants(h.conf.Limits) {
		if a.id == h.fixedID(append([]string{capabilities}, c.path...)...) {
			return target{in: claims, names: slices.Concat(c.path, a.names), byID: true, kind: acl.Container, exact: len(a.names) == 0}, true, nil
		}
	}
	providers, err := h.conf.Reader.Providers(q.Context())
	if err != nil {
		return target{}, false, err
	}
	if a.id == h.fixedID() {
		t, ok = target{byID: true, names: a.names}, true
	}
	for _, p := range providers.Items {
		if a.id == h.fixedID(string(p.Name)) {
			t, ok = target{byID: true, names: slices.Insert(slices.Clone(a.names), 0, string(p.Name))}, true
		}
	}
	if ok && len(t.names) >= 2 {
		t.at, err = address{names: t.names}.location()
	}
	return t, ok, err
}

// hideID takes the name of what has an id out of a failure that is told to who may not see it.
func hideID(err error) error {
	if problem.Of(err) == problem.Hidden {
		return noID()
	}
	return err
}

func noID() error {
	return problem.New(problem.Hidden, "There is nothing of that object id, or it may not be seen by this account")
}

// read answers a GET.
func (h *Handler) read(q request) (answer, error) {
	if q.version == "" {
		return answer{}, &problem.Error{
			Code: problem.NotOffered, Detail: "A request of plain HTTP asks for a value, and values are neither read nor written here",
			Remedy: "Send the header " + versionHeader + " and accept a type of CDMI, or move objects with 'consign cp'.",
		}
	}
	t, err := h.resolve(q)
	if err != nil {
		return answer{}, err
	}
	switch {
	case t.in == claims:
		return h.readClaims(q, t)
	case len(t.names) < 2:
		return h.readFixed(q, t)
	case q.address.slash && t.exact && t.kind == acl.Object:
		return answer{}, noID()
	case q.address.slash || t.exact && t.kind == acl.Container || len(t.names) == 2:
		return h.readContainer(q, t)
	}
	a, err := h.readPlace(q, t, acl.Object)
	if err == nil || t.exact || problem.Of(err) == problem.NotPermitted || statusOf(err) >= http.StatusInternalServerError {
		return a, err
	}
	if h.sees(q, t, acl.Container) == nil {
		return h.redirect(q), nil
	}
	if none := h.sees(q, t, acl.Object); none != nil {
		return answer{}, none // rather than what is wrong with the question
	}
	return answer{}, err
}

// sees returns nil if the caller may see anything of what is at a place.
func (h *Handler) sees(q request, t target, k acl.Kind) error {
	_, err := h.conf.Reader.See(q.Context(), q.peer, broker.Look{At: t.at, Kind: k, Parts: selection{}.parts(containerFields)}, q.now)
	if t.byID {
		err = hideID(err)
	}
	return err
}

// readContainer shows a container, or redirects to its name with a slash if the caller may see it.
func (h *Handler) readContainer(q request, t target) (answer, error) {
	if q.address.slash {
		return h.readPlace(q, t, acl.Container)
	}
	if err := h.sees(q, t, acl.Container); err != nil {
		return answer{}, err
	}
	return h.redirect(q), nil
}

// readPlace shows a container or data object.
func (h *Handler) readPlace(q request, t target, k acl.Kind) (answer, error) {
	fields := dataFields
	if k == acl.Container {
		fields = containerFields
	}
	media, err := acceptable(q.Header, typeOf(k))
	if err != nil {
		return answer{}, err
	}
	s, err := parseSelection(q.URL.RawQuery, fields)
	if err != nil {
		return answer{}, err
	}
	look := broker.Look{At: t.at, Kind: k, Parts: s.parts(fields)}
	if slices.Contains(look.Parts, acl.Children) && (s.wants(childrenField) || s.wants(childrenRange)) {
		span := s.children()
		look.From, look.Count = span.lo, span.hi-span.lo+1
	}
	seen, err := h.conf.Reader.See(q.Context(), q.peer, look, q.now)
	if t.byID {
		err = hideID(err)
	}
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, media: media, doc: h.placeDocument(t, k, s, look, seen), etag: quotedTag(seen.ETag)}, nil
}

// quotedTag is a tag as the header has it.
func quotedTag(tag string) string {
	if tag == "" {
		return ""
	}
	return `"` + tag + `"`
}

// placeDocument is what a caller may see of a container or data object.
func (h *Handler) placeDocument(t target, k acl.Kind, s selection, look broker.Look, seen broker.Sight) document {
	var d document
	shown := func(p acl.Part) bool { return slices.Contains(seen.Shown, p) }
	if shown(acl.Attributes) {
		h.attributes(&d, t.names, k, seen)
	}
	if shown(acl.Metadata) || shown(acl.List) {
		m := space.Metadata{}
		for item, v := range seen.Metadata {
			if s.asksFor(item) {
				m[item] = v
			}
		}
		d.raw(metadataField, m.Marshal())
	}
	if shown(acl.Children) {
		d.listed(s, look.From, seen.Children)
	}
	return d.selected(s)
}

// attributes are the fields that say what something is.
func (h *Handler) attributes(d *document, names []string, k acl.Kind, seen broker.Sight) {
	d.text(objectType, typeOf(k))
	if seen.ID != "" {
		d.text(objectID, string(seen.ID))
	}
	name := names[len(names)-1]
	if k == acl.Container {
		name += "/"
	}
	d.text(objectName, name)
	d.text(parentURI, uri(names[:len(names)-1]...))
	parent := seen.ParentID
	if len(names) == 2 {
		parent = h.fixedID(names[0])
	}
	if parent != "" {
		d.text(parentID, string(parent))
	}
	d.text(capabilitiesURI, uri(append([]string{capabilities}, claimsOf(k, names)...)...))
	d.text(completionStatus, "Complete")
	if k == acl.Object {
		d.text(mimetype, "application/octet-stream") // what is in it nobody has said
	}
}

// readFixed shows the root or a provider.
func (h *Handler) readFixed(q request, t target) (answer, error) {
	providers, err := h.conf.Reader.Providers(q.Context())
	if err != nil {
		return answer{}, err
	}
	children := []string{}
	for _, p := range providers.Items {
		if len(t.names) == 0 {
			children = append(children, string(p.Name)+"/")
			continue
		}
		if string(p.Name) != t.names[0] {
			continue
		}
		for _, c := range p.Containers {
			children = append(children, string(c)+"/")
		}
	}
	known := slices.ContainsFunc(providers.Items, func(p api.ProviderInfo) bool { return len(t.names) > 0 && string(p.Name) == t.names[0] })
	if len(t.names) > 0 && !known {
		return answer{}, problem.New(problem.UnknownProvider, "There is no provider %s at this broker", problem.Quote(t.names[0]))
	}
	if !q.address.slash {
		return h.redirect(q), nil
	}
	media, err := acceptable(q.Header, typeContainer)
	if err != nil {
		return answer{}, err
	}
	s, err := parseSelection(q.URL.RawQuery, containerFields)
	if err != nil {
		return answer{}, err
	}
	slices.SortFunc(children, strings.Compare)
	return answer{status: http.StatusOK, media: media, doc: h.fixedDocument(t.names, s, children)}, nil
}

// fixedDocument is the root or a provider, with all that it holds.
func (h *Handler) fixedDocument(names []string, s selection, children []string) document {
	var d document
	d.text(objectType, typeContainer)
	d.text(objectID, string(h.fixedID(names...)))
	if len(names) == 0 {
		d.text(objectName, Prefix)
		d.text(parentURI, "")
	} else {
		d.text(objectName, names[0]+"/")
		d.text(parentURI, uri())
		d.text(parentID, string(h.fixedID()))
	}
	d.text(capabilitiesURI, uri(append([]string{capabilities}, ofFixed...)...))
	d.text(completionStatus, "Complete")
	d.raw(metadataField, []byte("{}"))
	span, n := s.children(), int64(len(children))
	d.listed(s, span.lo, children[min(span.lo, n):min(span.hi+1, n)])
	return d.selected(s)
}

// readClaims shows an object of capabilities.
func (h *Handler) readClaims(q request, t target) (answer, error) {
	c, err := claimantAt(h.conf.Limits, t.names)
	if err != nil {
		return answer{}, err
	}
	if !q.address.slash {
		return h.redirect(q), nil
	}
	media, err := acceptable(q.Header, typeCapability)
	if err != nil {
		return answer{}, err
	}
	s, err := parseSelection(q.URL.RawQuery, capabilityFields)
	if err != nil {
		return answer{}, err
	}
	doc, err := c.document(h.fixedID, s)
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, media: media, doc: doc}, nil
}
