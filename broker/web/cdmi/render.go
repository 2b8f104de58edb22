package cdmi

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// A document is a JSON object whose fields stand in the order in which the standard has them; children come last.
type document []field

type field struct {
	name  string
	value json.RawMessage
}

// text adds a string.
func (d *document) text(name, s string) { *d = append(*d, field{name, quoted(s)}) }

// raw adds JSON.
func (d *document) raw(name string, v []byte) { *d = append(*d, field{name, v}) }

// names adds an array of strings.
func (d *document) names(name string, list []string) {
	var b bytes.Buffer
	b.WriteByte('[')
	for i, s := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(quoted(s))
	}
	b.WriteByte(']')
	d.raw(name, b.Bytes())
}

// listed adds children, of which the first has the number from, and says which they are.
func (d *document) listed(s selection, from int64, list []string) {
	if s.wants(childrenRange) || s.span != nil {
		which := ""
		if len(list) > 0 {
			which = fmt.Sprintf("%d-%d", from, from+int64(len(list))-1)
		}
		d.text(childrenRange, which)
	}
	if s.wants(childrenField) {
		d.names(childrenField, list)
	}
}

// selected returns the fields that are asked for.
func (d document) selected(s selection) document {
	var out document
	for _, f := range d {
		if s.wants(f.name) || f.name == childrenRange && s.span != nil {
			out = append(out, f)
		}
	}
	return out
}

// bytes is the document as it is sent.
func (d document) bytes() []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range d {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(quoted(f.name))
		b.WriteByte(':')
		b.Write(f.value)
	}
	b.WriteString("}\n")
	return b.Bytes()
}

// quoted is s as JSON, without the escapes that are for pages of HTML.
func quoted(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic("cdmi: internal error: a string has no JSON: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}
