package cdmi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token/problem"
)

// maxBody bounds the body of a request in bytes: metadata as large as they may be, and a little.
const maxBody = space.MaxMetadataSize + 64<<10

// notOffered are fields with which the standard asks for things that are not done here.
var notOffered = []string{domainURI, "snapshot", exportsField, "serialize", "deserialize", "deserializevalue", "copy", "move", "reference"}

// parseBody reads the metadata that a client sends for something of kind k; nil if it sends none. A body has exactly one reading: a member that
// is there twice is problem.Malformed, one that does not exist problem.UnknownField. What the standard has and is not offered is problem.NotOffered.
func parseBody(data []byte, k acl.Kind) (space.Metadata, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if !utf8.Valid(data) {
		return nil, problem.New(problem.Malformed, "The body is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return nil, problem.New(problem.Malformed, "The body is not a JSON object")
	}
	var m space.Metadata
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		name, ok := tok.(string)
		if err != nil || !ok {
			return nil, problem.New(problem.Malformed, "The body is not a JSON object")
		}
		if seen[name] {
			return nil, problem.New(problem.Malformed, "The field %s is there twice", problem.Quote(name))
		}
		seen[name] = true
		if err := checkField(name, k); err != nil {
			return nil, err
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, problem.Wrap(err, problem.Malformed, "The field %q has no value", name)
		}
		if m, err = space.ParseMetadata(raw); err != nil {
			return nil, err
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, problem.Wrap(err, problem.Malformed, "The body is not a JSON object")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, problem.New(problem.Malformed, "There is something after the end of the JSON value")
	}
	return m, nil
}

// checkField refuses every field but metadata, which alone can be written.
func checkField(name string, k acl.Kind) error {
	shown := containerFields
	if k == acl.Object {
		shown = dataFields
	}
	switch {
	case name == metadataField:
		return nil
	case slices.Contains(valueFields, name):
		return noValue()
	case slices.Contains(notOffered, name):
		return &problem.Error{
			Code: problem.NotOffered, Detail: "What the field " + name + " asks for is not offered",
			Remedy: "The objects below " + uri(capabilities) + " say what is.",
		}
	case slices.Contains(shown, name):
		return problem.New(problem.Malformed, "The field %q is shown and cannot be written", name)
	}
	return problem.New(problem.UnknownField, "The field %s does not exist", problem.Quote(name))
}
