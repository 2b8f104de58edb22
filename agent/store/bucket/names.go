package bucket

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	hidden   = ".consign"   // the folder that is not listed, directly below the prefix
	last     = "\U0010FFFF" // behind every other character
	probing  = "probe-"     // begins the batch ids of probes, which no other batch has
	maxBatch = 128          // bytes of a batch id
)

// key is where a name is kept.
func (s *Store) key(name token.ObjectName) string { return s.base + string(name) }

// checkName refuses what this store cannot hold.
func (s *Store) checkName(name token.ObjectName) error {
	if err := token.CheckName(name); err != nil {
		return err
	}
	for seg := range strings.SplitSeq(string(name), "/") {
		if strings.EqualFold(seg, hidden) {
			return problem.New(problem.BadName, "The segment %q is reserved.", seg)
		}
	}
	if n := len(s.key(name)); n > s.limits.MaxKey {
		return problem.New(problem.BadName, "The name makes a key of %d bytes; the store takes %d.", n, s.limits.MaxKey)
	}
	return nil
}

// reserved returns the part of a name that ends with a segment .consign which has more behind it, or "".
func reserved(name string) string {
	at := 0
	for seg := range strings.SplitSeq(name, "/") {
		end := at + len(seg)
		if end < len(name) && strings.EqualFold(seg, hidden) {
			return name[:end]
		}
		at = end + 1
	}
	return ""
}

// escape writes a key that is no name so that it can be shown and would be one: what is not printable ASCII, '%', '\', a '/' that ends or begins an
// empty segment, and the dots of "." and "..", as %XX.
func escape(key string) string {
	var b strings.Builder
	for i, c := range []byte(key) {
		plain := c > ' ' && c < 0x7f && c != '%' && c != '\\'
		switch c {
		case '/':
			plain = i > 0 && i+1 < len(key) && key[i-1] != '/' && key[i+1] != '/'
		case '.':
			seg := key[strings.LastIndexByte(key[:i], '/')+1:]
			seg, _, _ = strings.Cut(seg, "/")
			plain = seg != "." && seg != ".."
		}
		if plain {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// unescape is the key whose escaped form is name. If it is a name, or there is none, ok is false.
func (s *Store) unescape(name string) (key string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] != '%' || i+3 > len(name) {
			b.WriteByte(name[i])
			continue
		}
		c, err := strconv.ParseUint(name[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		b.WriteByte(byte(c))
		i += 2
	}
	key = b.String()
	return key, escape(key) == name && s.checkName(token.ObjectName(key)) != nil
}

// validBatch reports whether id is a path segment of letters, digits and '-'.
func validBatch(id store.BatchID) bool {
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return id != "" && len(id) <= maxBatch
}

// batchOf is whose stage an origin is; "" if it is none.
func batchOf(o store.Origin) store.BatchID {
	id, index, ok := strings.Cut(string(o), "/")
	if n, err := strconv.Atoi(index); !ok || err != nil || n < 0 || !validBatch(store.BatchID(id)) {
		return ""
	}
	return store.BatchID(id)
}

// nameOf is what a key would be called; "" if that is no name of this container.
func (s *Store) nameOf(key string) token.ObjectName {
	name, ok := strings.CutPrefix(key, s.base)
	if !ok || s.checkName(token.ObjectName(name)) != nil {
		return ""
	}
	return token.ObjectName(name)
}
