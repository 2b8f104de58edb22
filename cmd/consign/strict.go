package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	yamlv3 "go.yaml.in/yaml/v3"

	"github.com/consign-transfer/consign/agent/store/gcs"
	"github.com/consign-transfer/consign/token/problem"
)

// A strictYAML is a koanf.Parser that accepts exactly what the shape names, and
// notes the line of each value.
type strictYAML struct {
	file   string
	shape  *shape
	origin map[string]string
}

// Marshal is that of koanf's parser.
func (y strictYAML) Marshal(m map[string]any) ([]byte, error) { return yaml.Parser().Marshal(m) }

// Unmarshal returns the settings of data, with scalars in their own types.
func (y strictYAML) Unmarshal(data []byte) (map[string]any, error) {
	dec := yamlv3.NewDecoder(bytes.NewReader(data))
	var doc yamlv3.Node
	err := dec.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF):
		return map[string]any{}, nil
	case err != nil:
		return nil, problem.Wrap(err, problem.BadConfig, "%s is not good YAML", y.file)
	}
	if err := dec.Decode(new(yamlv3.Node)); !errors.Is(err, io.EOF) {
		return nil, problem.New(problem.BadConfig, "%s holds more than one YAML document", y.file)
	}
	if len(doc.Content) != 1 {
		return map[string]any{}, nil
	}
	v, err := y.value(doc.Content[0], y.shape, "")
	if err != nil {
		return nil, err
	}
	return v.(map[string]any), nil
}

// wrong says what is wrong at the line of n.
func (y strictYAML) wrong(n *yamlv3.Node, format string, args ...any) error {
	return problem.New(problem.BadConfig, "%s:%d: %s", y.file, n.Line, fmt.Sprintf(format, args...))
}

func (y strictYAML) value(n *yamlv3.Node, sh *shape, path string) (any, error) {
	if n.Kind == yamlv3.AliasNode || n.Anchor != "" {
		return nil, y.wrong(n, "anchors and aliases are not supported")
	}
	switch sh.kind {
	case group, dict:
		if n.Kind != yamlv3.MappingNode {
			return nil, y.wrong(n, "%s must hold settings, as in 'key: value'", title(path))
		}
		return y.mapping(n, sh, path)
	case list:
		if n.Kind != yamlv3.SequenceNode {
			return nil, y.wrong(n, "%s must be a list", title(path))
		}
		out := make([]any, 0, len(n.Content))
		for i, c := range n.Content {
			v, err := y.value(c, sh.elem, join(path, strconv.Itoa(i)))
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	case scalar:
	}
	if n.Kind != yamlv3.ScalarNode || n.Tag == "!!null" {
		return nil, y.wrong(n, "%s must be a single value", title(path))
	}
	v, err := sh.parse(n.Value)
	if err != nil {
		return nil, y.wrong(n, "%s is not good: %s", title(path), sentenceOf(err))
	}
	if s, ok := v.(string); ok && isPath(sh.typ, s) && !filepath.IsAbs(s) {
		v = filepath.Join(filepath.Dir(y.file), s)
	}
	y.origin[path] = y.file + ":" + strconv.Itoa(n.Line)
	return v, nil
}

// isPath reports whether the text of a setting is a path.
func isPath(typ reflect.Type, text string) bool {
	switch typ {
	case reflect.TypeFor[filePath]():
		return text != ""
	case reflect.TypeFor[secretPath]():
		return text != "" && text != gcs.Anonymous && !strings.HasPrefix(text, systemdCredential)
	}
	return false
}

func (y strictYAML) mapping(n *yamlv3.Node, sh *shape, path string) (map[string]any, error) {
	out := make(map[string]any, len(n.Content)/2)
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		key := k.Value
		if first, twice := lines[key]; twice {
			return nil, y.wrong(k, "the setting %s was already given in line %d", quoted(key), first)
		}
		lines[key] = k.Line
		elem := sh.elem
		if sh.kind == group {
			if elem = sh.keys[key]; elem == nil {
				if namesSecret(key) {
					return nil, y.wrong(k, "%s is the name of a secret, and a configuration holds none. %s", quoted(key), secretsBelong)
				}
				return nil, unknownSetting(y.file+":"+strconv.Itoa(k.Line), key, sh.names())
			}
		}
		got, err := y.value(v, elem, join(path, key))
		if err != nil {
			return nil, err
		}
		out[key] = got
	}
	return out, nil
}

func title(path string) string {
	if path == "" {
		return "the file"
	}
	return strconv.Quote(strings.ReplaceAll(path, keyMark, "/"))
}
