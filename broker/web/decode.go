package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"

	"github.com/consign-transfer/consign/token/problem"
)

// maxDepth bounds how deep a body may nest.
const maxDepth = 16

// decode reads data into v, a pointer to a struct, if it has exactly one reading: problem.UnknownField names a
// member that does not exist, in these very letters; all else that is wrong is problem.Malformed.
func decode(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := walk(dec, reflect.TypeOf(v).Elem(), "", maxDepth); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return problem.New(problem.Malformed, "There is something after the end of the JSON value")
	}
	if err := json.Unmarshal(data, v); err != nil {
		var t *json.UnmarshalTypeError
		if errors.As(err, &t) {
			return problem.Wrap(err, problem.Malformed, "The member %q is not of the right type", t.Field)
		}
		return problem.Wrap(err, problem.Malformed, "The body is not what this path takes")
	}
	return nil
}

// walk goes over one value and refuses members that t does not have, or has twice.
func walk(dec *json.Decoder, t reflect.Type, at string, depth int) error {
	tok, err := dec.Token()
	if err != nil {
		return problem.Wrap(err, problem.Malformed, "The body is not JSON")
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	if depth == 0 {
		return problem.New(problem.Malformed, "The body nests deeper than %d levels", maxDepth)
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if delim == '[' {
		var elem reflect.Type
		if t != nil && t.Kind() == reflect.Slice {
			elem = t.Elem()
		}
		for dec.More() {
			if err := walk(dec, elem, at, depth-1); err != nil {
				return err
			}
		}
	} else if err := walkObject(dec, t, at, depth); err != nil {
		return err
	}
	if _, err := dec.Token(); err != nil {
		return problem.Wrap(err, problem.Malformed, "The body is not JSON")
	}
	return nil
}

func walkObject(dec *json.Decoder, t reflect.Type, at string, depth int) error {
	var known map[string]reflect.Type
	if t != nil && t.Kind() == reflect.Struct {
		known = members(t)
	}
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return problem.Wrap(err, problem.Malformed, "The body is not JSON")
		}
		name, ok := tok.(string)
		if !ok {
			return problem.New(problem.Malformed, "The body is not JSON")
		}
		path := strings.TrimPrefix(at+"."+name, ".")
		mt, exists := known[name]
		switch {
		case seen[name]:
			return problem.New(problem.Malformed, "The member %q is there twice", short(path))
		case known != nil && !exists:
			return problem.New(problem.UnknownField, "The member %q does not exist", short(path))
		}
		seen[name] = true
		if err := walk(dec, mt, path, depth-1); err != nil {
			return err
		}
	}
	return nil
}

// members returns the JSON members of a struct, those of embedded structs included.
func members(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			for k, v := range members(f.Type) {
				out[k] = v
			}
			continue
		}
		if name != "" && name != "-" {
			out[name] = f.Type
		}
	}
	return out
}

func short(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "..."
	}
	return s
}
