package token

import (
	"bytes"
	stdjson "encoding/json"
	"fmt"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/consign-transfer/consign/token/problem"
	"github.com/go-jose/go-jose/v4/json"
)

// maxInteger is the largest integer of canonical JSON (RFC 8785, RFC 7493): 2^53-1.
const maxInteger = 1<<53 - 1

// marshal returns the one byte form of v: RFC 8785 without floats, null, maps
// and pointers. Members are sorted by name, a nil slice is [].
func marshal(v any) ([]byte, error) { return appendValue(nil, reflect.ValueOf(v)) }

func appendValue(b []byte, v reflect.Value) ([]byte, error) {
	switch v.Kind() {
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool()), nil
	case reflect.Int64:
		if n := v.Int(); n > maxInteger || n < -maxInteger {
			return nil, problem.New(problem.Malformed, "The number %d is beyond the integers of JSON.", n)
		}
		return strconv.AppendInt(b, v.Int(), 10), nil
	case reflect.String:
		return appendString(b, v.String())
	case reflect.Slice:
		return appendSlice(b, v)
	case reflect.Struct:
		return appendStruct(b, v)
	}
	panic("token: internal error: no canonical form of " + v.Kind().String())
}

func appendSlice(b []byte, v reflect.Value) ([]byte, error) {
	b = append(b, '[')
	for i := range v.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendValue(b, v.Index(i)); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func appendStruct(b []byte, v reflect.Value) ([]byte, error) {
	type member struct {
		name  string
		index int
	}
	t := v.Type()
	members := make([]member, t.NumField())
	for i := range members {
		members[i] = member{t.Field(i).Tag.Get("json"), i}
	}
	// Member names are ASCII, where the order of RFC 8785 (UTF-16) is that of bytes.
	sort.Slice(members, func(i, j int) bool { return members[i].name < members[j].name })
	b = append(b, '{')
	for i, m := range members {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), m.name...), '"', ':')
		var err error
		if b, err = appendValue(b, v.Field(m.index)); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// appendString writes s with the escapes of RFC 8785 section 3.2.2.2 and no others.
func appendString(b []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, problem.New(problem.Malformed, "The text %s is not UTF-8.", problem.Quote(s))
	}
	b = append(b, '"')
	for i := range len(s) {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= 0x20:
			b = append(b, c)
		case c == '\b' || c == '\t' || c == '\n' || c == '\f' || c == '\r':
			b = append(b, '\\', "btn\x00fr"[c-'\b'])
		default:
			b = fmt.Appendf(b, `\u%04x`, c)
		}
	}
	return append(b, '"'), nil
}

// unmarshal decodes what marshal wrote and nothing else. Outcomes: the value;
// problem.Malformed if b is not JSON of that shape or names a member twice;
// problem.UnknownField if it has a member that T has not; problem.NotCanonical if
// it is another spelling, or lacks a member. The value is zero with an error.
func unmarshal[T any](what string, b []byte) (T, error) {
	var v, zero T
	// Duplicate members are refused and names are compared case-sensitively here,
	// which encoding/json does not do.
	if err := json.Unmarshal(b, &v); err != nil {
		return zero, problem.Wrap(err, problem.Malformed, "The %s is not JSON of the form that is specified.", what)
	}
	again, err := marshal(v)
	if err != nil {
		return zero, err
	}
	if bytes.Equal(again, b) {
		return v, nil
	}
	if name, ok := unknownField[T](b); ok {
		return zero, problem.New(problem.UnknownField, "The %s has the unknown field %s.", what, problem.Quote(name))
	}
	return zero, problem.New(problem.NotCanonical, "The %s is not in its canonical form.", what)
}

// unknownField finds the first member of b that T has not. It only chooses the
// words of a refusal.
func unknownField[T any](b []byte) (string, bool) {
	dec := stdjson.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	err := dec.Decode(new(T))
	if err == nil {
		return "", false
	}
	quoted, ok := strings.CutPrefix(err.Error(), "json: unknown field ")
	if !ok {
		return "", false
	}
	name, err := strconv.Unquote(quoted)
	return name, err == nil
}

// MarshalManifest returns the canonical bytes of m and their hash, which is the
// name of m. It fails as Manifest.Check does, and with problem.TooLarge if the
// bytes are more than MaxManifestSize, which long names can bring about before
// MaxItems is reached.
func MarshalManifest(m Manifest) ([]byte, Hash, error) {
	b, err := marshalChecked("manifest", m, MaxManifestSize)
	if err != nil {
		return nil, "", err
	}
	return b, HashOf(b), nil
}

// ParseManifest accepts only the bytes that MarshalManifest writes, and returns
// their hash. It fails with problem.TooLarge, Malformed, UnknownField,
// NotCanonical or as Manifest.Check does; the results are then zero.
func ParseManifest(b []byte) (Manifest, Hash, error) {
	m, err := parseChecked[Manifest]("manifest", b, MaxManifestSize)
	if err != nil {
		return Manifest{}, "", err
	}
	return m, HashOf(b), nil
}

// MarshalOutcome returns the canonical bytes of o: one line without its end, as
// OutcomesRoot wants it. It fails as Outcome.Check does, and with problem.TooLarge
// if the line is longer than MaxOutcomeSize.
func MarshalOutcome(o Outcome) ([]byte, error) {
	return marshalChecked("outcome", o, MaxOutcomeSize)
}

// ParseOutcome accepts only the bytes that MarshalOutcome writes. It fails with
// problem.TooLarge, Malformed, UnknownField, NotCanonical or as Outcome.Check does.
func ParseOutcome(b []byte) (Outcome, error) {
	return parseChecked[Outcome]("outcome", b, MaxOutcomeSize)
}

// Payload returns the canonical bytes of o, which every account key signs. It
// fails as Order.Check does, and with problem.TooLarge beyond MaxOrderPayload.
func (o Order) Payload() ([]byte, error) {
	return marshalChecked("order", o, MaxOrderPayload)
}

// checked is a value that knows whether it is well formed.
type checked interface{ Check() error }

func marshalChecked[T checked](what string, v T, limit int) ([]byte, error) {
	if err := v.Check(); err != nil {
		return nil, err
	}
	b, err := marshal(v)
	if err != nil {
		return nil, err
	}
	if len(b) > limit {
		return nil, tooLarge(what, limit)
	}
	return b, nil
}

func parseChecked[T checked](what string, b []byte, limit int) (T, error) {
	var zero T
	if len(b) > limit {
		return zero, tooLarge(what, limit)
	}
	v, err := unmarshal[T](what, b)
	if err != nil {
		return zero, err
	}
	if err := v.Check(); err != nil {
		return zero, err
	}
	return v, nil
}

func tooLarge(what string, limit int) error {
	return problem.New(problem.TooLarge, "The %s is larger than %d bytes.", what, limit)
}
