package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A filePath is a setting that names a file or directory. A relative one is
// resolved against the folder of the file that sets it; in the environment and in flags,
// against the working directory.
type filePath string

// A secretPath is a setting that names a file which holds a secret: a filePath, or systemd:NAME for the
// credential that systemd gives to the service under that name (LoadCredential).
type secretPath string

// A size is a setting in bytes, written as parseSize reads it.
type size int64

// String writes it as bytes.
func (s *size) String() string { return strconv.FormatInt(int64(*s), 10) }

// Type is the placeholder in help texts.
func (s *size) Type() string { return "size" }

// Set is a flag's parser.
func (s *size) Set(text string) error {
	n, err := parseSize(text)
	*s = size(n)
	return err
}

// A shape is what a setting may look like. It is made from a Go type, so that the
// configuration's struct is the only list of settings.
type shape struct {
	kind shapeKind
	typ  reflect.Type      // scalar
	keys map[string]*shape // group
	elem *shape            // list, dict
}

type shapeKind int

const (
	scalar shapeKind = iota
	group            // a struct: fixed keys
	dict             // a map: any key
	list
)

// settingTag is the tag of a field that names its setting.
const settingTag = "koanf"

// within is the tag of an embedded struct whose settings stand beside those of the struct around it.
const within = ",squash"

// shapeOf returns the shape of a type made of structs, maps, slices and scalars. A pointer is a group that may be
// left out.
func shapeOf(t reflect.Type) *shape {
	switch t.Kind() {
	case reflect.Pointer:
		return shapeOf(t.Elem())
	case reflect.Struct:
		s := &shape{kind: group, keys: map[string]*shape{}}
		for f := range t.Fields() {
			if f.Tag.Get(settingTag) == within {
				maps.Copy(s.keys, shapeOf(f.Type).keys)
				continue
			}
			s.keys[f.Tag.Get(settingTag)] = shapeOf(f.Type)
		}
		return s
	case reflect.Map:
		return &shape{kind: dict, elem: shapeOf(t.Elem())}
	case reflect.Slice:
		return &shape{kind: list, elem: shapeOf(t.Elem())}
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int64:
		return &shape{kind: scalar, typ: t}
	default:
		panic("consign: internal error: a setting of type " + t.String())
	}
}

// parse reads the text of a scalar setting.
func (s *shape) parse(text string) (any, error) {
	switch s.typ {
	case reflect.TypeFor[time.Duration]():
		return parseSpan(text)
	case reflect.TypeFor[size]():
		return parseSize(text)
	}
	switch s.typ.Kind() {
	case reflect.Bool:
		if text == "true" || text == "false" {
			return text == "true", nil
		}
		return nil, fmt.Errorf("%s is neither true nor false", quoted(text))
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%s is not a whole number of 0 or more", quoted(text))
		}
		return n, nil
	default:
		return text, nil
	}
}

// at returns the shape of the setting at path, whose segments are divided by keyMark.
func (s *shape) at(path string) *shape {
	for _, seg := range strings.Split(path, keyMark) {
		if s == nil || s.kind != group {
			return nil
		}
		s = s.keys[seg]
	}
	return s
}

// names returns the keys of a group, sorted.
func (s *shape) names() []string {
	var out []string
	for k := range s.keys {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// scalars calls fn for the path of each scalar that is not within a list or dict.
func (s *shape) scalars(path string, fn func(path string)) {
	switch s.kind {
	case scalar:
		fn(path)
	case group:
		for _, k := range s.names() {
			s.keys[k].scalars(join(path, k), fn)
		}
	case dict, list:
	}
}

// keyMark divides the segments of a setting's path. No key has it: a provider's name may have dots, and the address of a container has slashes.
const keyMark = "\x1f"

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + keyMark + key
}

// A setting is one effective value and where it came from.
type setting struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Origin string `json:"origin"`
}

// effective lists every scalar of v, which is a configuration's struct, with its origin.
func effective(v reflect.Value, path string, origin map[string]string) []setting {
	var out []setting
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			out = effective(v.Elem(), path, origin)
		}
	case reflect.Struct:
		for f, fv := range v.Fields() {
			if f.Tag.Get(settingTag) == within {
				out = append(out, effective(fv, path, origin)...)
				continue
			}
			out = append(out, effective(fv, join(path, f.Tag.Get(settingTag)), origin)...)
		}
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			out = append(out, effective(v.MapIndex(k), join(path, k.String()), origin)...)
		}
	case reflect.Slice:
		for i := range v.Len() {
			out = append(out, effective(v.Index(i), join(path, strconv.Itoa(i)), origin)...)
		}
	default:
		from := origin[path]
		if from == "" {
			from = "default"
		}
		out = append(out, setting{Key: strings.ReplaceAll(path, keyMark, "."), Value: fmt.Sprint(v.Interface()), Origin: from})
	}
	return out
}

// nearest returns the candidate that is most like word, or "" if none is close.
func nearest(word string, candidates []string) string {
	best, least := "", max(2, len(word)/3)+1
	for _, c := range candidates {
		if d := distance(word, c); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance is the number of letters to insert, remove, replace or swap to turn a into b. Long
// words are not compared.
func distance(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return longest
	}
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
