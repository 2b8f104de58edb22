package bucket

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
)

// Keys of metadata that are ours. mtime and mode are spelled as rclone does.
const (
	mtimeKey = "mtime" // decimal seconds since 1970 with up to nine digits behind the point
	modeKey  = "mode"  // octal, with the bits of a regular file: 0100644
)

// ourKeys are those whose spelling depends on the service.
type ourKeys struct{ origin, digest string }

// spell finds keys that the service takes: those of Azure are identifiers.
func (s *Store) spell() ourKeys {
	if s.limits.MetaPair("consign-transfer", "x") != nil {
		return ourKeys{"consign_transfer", "consign_digest"}
	}
	return ourKeys{"consign-transfer", "consign-digest"}
}

// isOurs reports whether a key, in any spelling, is one of ours, which users cannot write.
func isOurs(key string) bool {
	switch strings.ReplaceAll(strings.ToLower(key), "_", "-") {
	case mtimeKey, modeKey, "consign-transfer", "consign-digest":
		return true
	}
	return false
}

// kept is what a service was found to keep.
type kept struct{ types, modes, times, meta bool }

var keepsAll = kept{true, true, true, true} // until Probe has measured; never changed

func (s *Store) kept() kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keeps
}

// header is what is written beside a stage's content, as far as the service keeps it. An empty digest is not written.
func (s *Store) header(a store.Attrs, origin store.Origin, digest token.Digest) Header {
	keeps := s.kept()
	h := Header{Meta: map[string]string{s.ours.origin: string(origin)}, Origin: origin}
	if digest != "" {
		h.Meta[s.ours.digest] = string(digest)
	}
	if keeps.types && plainType(a.ContentType) {
		h.ContentType = a.ContentType
	}
	if keeps.modes && a.HasMode {
		h.Meta[modeKey] = fmt.Sprintf("0%o", regular|a.Mode&permissions)
	}
	if keeps.times && !a.ModTime.IsZero() {
		h.Meta[mtimeKey] = formatTime(a.ModTime)
	}
	if !keeps.meta {
		return h
	}
	room := s.limits.MaxMeta
	for k, v := range h.Meta {
		room -= len(k) + len(v) + s.limits.MetaPad
	}
	for _, k := range slices.Sorted(maps.Keys(a.Meta)) {
		v := a.Meta[k]
		if isOurs(k) || s.limits.MetaPair(k, v) != nil || s.limits.MaxMeta > 0 && len(k)+len(v)+s.limits.MetaPad > room {
			continue
		}
		h.Meta[k] = v
		room -= len(k) + len(v) + s.limits.MetaPad
	}
	return h
}

// plainType reports whether a content type can be a header's value.
func plainType(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return len(s) <= 255 && strings.TrimSpace(s) == s
}

// A meaning is what an object's metadata says.
type meaning struct {
	attrs  store.Attrs
	origin store.Origin
	digest token.Digest
}

// decode reads what the service says of an object. What was not written by us or rclone, and only looks like it, is user metadata. Where
// no time was written, it is the service's.
func (s *Store) decode(o Object) meaning {
	m := meaning{attrs: store.Attrs{ModTime: o.ModTime, ContentType: o.ContentType}}
	if o.ContentType == "binary/octet-stream" || o.ContentType == "application/octet-stream" {
		m.attrs.ContentType = "" // what services say where nobody has; it says no more than nothing (RFC 9110, section 8.3)
	}
	for k, v := range o.Meta {
		low := strings.ToLower(k)
		switch {
		case low == s.ours.origin:
			m.origin = store.Origin(v)
		case low == s.ours.digest:
			if d, err := token.ParseDigest(v); err == nil {
				m.digest = d
			}
		case low == mtimeKey && parseTime(v, &m.attrs.ModTime):
		case low == modeKey && parseMode(v, &m.attrs):
		case isOurs(k) && low != mtimeKey && low != modeKey:
		default:
			if m.attrs.Meta == nil {
				m.attrs.Meta = map[string]string{}
			}
			m.attrs.Meta[k] = v
		}
	}
	return m
}

// lost names the attributes that were wanted and are not there, in order.
func lost(want, got store.Attrs) (names []string) {
	if want.HasMode && (!got.HasMode || got.Mode != want.Mode) {
		names = append(names, "mode")
	}
	if !want.ModTime.IsZero() && !got.ModTime.Equal(want.ModTime) {
		names = append(names, "mtime")
	}
	if want.ContentType != "" && got.ContentType != want.ContentType {
		names = append(names, "type")
	}
	for k, v := range want.Meta {
		if have, ok := got.Meta[k]; !ok || have != v {
			names = append(names, "meta:"+k)
		}
	}
	slices.Sort(names)
	return names
}

const (
	regular     = 0o100000 // the file type of a regular file, in a mode of POSIX
	fileType    = 0o170000
	permissions = 0o777
	special     = 0o7000 // set-user-id and the like, which do not travel
)

func parseMode(v string, a *store.Attrs) bool {
	m, err := strconv.ParseUint(v, 8, 32)
	if err != nil || m&^(fileType|special|permissions) != 0 || m&fileType != 0 && m&fileType != regular {
		return false
	}
	a.Mode, a.HasMode = uint32(m&permissions), true
	return true
}

// formatTime writes decimal seconds without needless zeros.
func formatTime(t time.Time) string {
	sec, nano, sign := t.Unix(), int64(t.Nanosecond()), ""
	if sec < 0 {
		sign = "-"
		if sec = -sec; nano > 0 {
			sec, nano = sec-1, 1e9-nano
		}
	}
	s := fmt.Sprintf("%s%d", sign, sec)
	if nano > 0 {
		s += strings.TrimRight(fmt.Sprintf(".%09d", nano), "0")
	}
	return s
}

// maxSeconds bounds a time on either side of 1970, some 30,000 years.
const maxSeconds = 1 << 40

// parseTime reads decimal seconds, or RFC 3339 as rclone writes it where metadata is told in JSON.
func parseTime(v string, into *time.Time) bool {
	if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
		*into = t.UTC()
		return true
	}
	whole, fraction, _ := strings.Cut(strings.TrimPrefix(v, "-"), ".")
	sec, err := strconv.ParseUint(whole, 10, 63)
	if err != nil || sec > maxSeconds || len(fraction) > 9 {
		return false
	}
	nano, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 63)
	if err != nil {
		return false
	}
	t := time.Unix(int64(sec), int64(nano))
	if strings.HasPrefix(v, "-") {
		t = time.Unix(-int64(sec), -int64(nano))
	}
	*into = t.UTC()
	return true
}
