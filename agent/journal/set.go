package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"sync"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
)

// Limits of a Set. All of it is held in memory: at most MaxSetSize bytes of keys and values.
const (
	MaxSetKey   = 16 << 10 // bytes of a key
	MaxSetValue = 64 << 10 // bytes of a value
	MaxSetSize  = 64 << 20 // bytes of all keys and values, each entry counted as 64 more
)

const (
	setKind      = 1       // an entry
	removeKind   = 2       // a key that was removed
	setOverhead  = 64      // bytes that an entry is counted for beside key and value
	setCompactAt = 1 << 20 // bytes of file below which Compact does nothing without need
)

// ErrFull means that a Set holds MaxSetSize.
var ErrFull = errors.New("the set is full")

// A Set remembers keys with a value until a time or until they are removed, across crashes: what was
// spent, which orders were seen, what was begun in a store. Its methods may be called concurrently.
type Set struct {
	dir  disk.FS
	name string
	boot string

	compact sync.RWMutex // held for reading while j is used, for writing while it is replaced
	j       *Journal

	mu      sync.Mutex // guards all below; taken after compact
	entries map[string]entry
	size    int64 // of entries
}

type entry struct {
	value string
	until int64 // seconds since 1970 UTC
}

func (e entry) size(key string) int64 { return int64(len(key)+len(e.value)) + setOverhead }

// OpenSet recovers the set in the file name of dir, or makes it, without the entries
// whose time is past at now. The directory stays the caller's and must be open as
// long as the set is.
func OpenSet(dir disk.FS, name, bootID string, now time.Time) (*Set, error) {
	s := &Set{dir: dir, name: name, boot: bootID, entries: map[string]entry{}}
	j, err := Open(dir, name, bootID, s.load)
	if errors.Is(err, fs.ErrNotExist) {
		j, err = Create(dir, name, bootID)
	}
	if err != nil {
		return nil, fmt.Errorf("opening set: %w", err)
	}
	s.j = j
	// What a killed process appended counts without having been promised; promise it now.
	if err := j.Commit(j.Mark()); err != nil {
		return nil, errors.Join(fmt.Errorf("opening set: %w", err), j.Close())
	}
	if err := s.Compact(now); err != nil {
		return nil, errors.Join(fmt.Errorf("opening set: %w", err), s.j.Close())
	}
	return s, nil
}

func (s *Set) load(r Record) error {
	if r.Kind == removeKind {
		s.delete(string(r.Data))
		return nil
	}
	key, e, ok := parseEntry(r)
	if !ok {
		return fmt.Errorf("reading an entry: %w", ErrCorrupt)
	}
	return s.put(key, e)
}

// put changes memory alone. The caller holds mu, or is alone.
func (s *Set) put(key string, e entry) error {
	size := s.size + e.size(key)
	if old, ok := s.entries[key]; ok {
		size -= old.size(key)
	}
	if size > MaxSetSize {
		return ErrFull
	}
	s.entries[key], s.size = e, size
	return nil
}

// delete changes memory alone. The caller holds mu, or is alone.
func (s *Set) delete(key string) {
	if old, ok := s.entries[key]; ok {
		s.size -= old.size(key)
		delete(s.entries, key)
	}
}

// ReadSet returns the entries of the set in the file name of dir whose time is not past at now, and changes nothing, so
// that it may belong to another process that is using it. One that does not exist is empty. What the other process has not
// made durable may be among it.
func ReadSet(dir disk.FS, name, bootID string, now time.Time) (map[string]string, error) {
	s := &Set{entries: map[string]entry{}}
	if err := readOnly(dir, name, bootID, s.load); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading set: %w", err)
	}
	values := make(map[string]string, len(s.entries))
	for key, e := range s.entries {
		if e.until >= now.Unix() {
			values[key] = e.value
		}
	}
	return values, nil
}

// Get returns the value of key and whether there is one. An entry whose time is
// past is there until Compact or OpenSet drops it.
func (s *Set) Get(key string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[key]
	return e.value, ok
}

// Len returns the number of entries.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries)
}

// Put gives key the value until that time, in place of any it has, and returns
// when it is durable. Concurrent calls share syncs. After an error it may or
// may not be there after a crash.
func (s *Set) Put(key, value string, until time.Time) error {
	_, err := s.store(key, entry{value, until.Unix()}, func(entry) bool { return true })
	return err
}

// PutAll gives each key its value until that time, in place of any that it has, and takes away the keys whose value is empty. It returns when all
// of that is durable, at the cost of one sync. After an error any part of it may or may not be there after a crash.
func (s *Set) PutAll(values iter.Seq2[string, string], until time.Time) error {
	s.compact.RLock()
	defer s.compact.RUnlock()
	mark := s.j.Mark()
	for key, value := range values {
		var err error
		switch {
		case len(key) > MaxSetKey || len(value) > MaxSetValue:
			err = fmt.Errorf("a key of %d and a value of %d bytes: %w", len(key), len(value), ErrTooLarge)
		case value == "":
			mark, err = s.appendRemoval(key)
		default:
			_, mark, err = s.append(key, entry{value, until.Unix()}, func(entry) bool { return true })
		}
		if err != nil {
			return fmt.Errorf("putting into a set: %w", err)
		}
	}
	if err := s.j.Commit(mark); err != nil {
		return fmt.Errorf("putting into a set: %w", err)
	}
	return nil
}

// Remove takes key away, and returns when that is durable. A key that is not there is fine. After an error it may
// or may not be there after a crash.
func (s *Set) Remove(key string) error {
	s.compact.RLock()
	defer s.compact.RUnlock()
	mark, err := s.appendRemoval(key)
	if err == nil {
		err = s.j.Commit(mark)
	}
	if err != nil {
		return fmt.Errorf("removing from a set: %w", err)
	}
	return nil
}

func (s *Set) appendRemoval(key string) (Mark, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.entries[key]; !ok {
		return s.j.Mark(), nil // its first Remove may still be on its way to the disk
	}
	if err := s.j.Append(Record{removeKind, []byte(key)}); err != nil {
		return 0, err
	}
	s.delete(key)
	return s.j.Mark(), nil
}

// All yields every entry as it is when the loop begins, in no order, also those whose time is past. The loop
// may call the other methods.
func (s *Set) All() iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		s.mu.Lock()
		all := maps.Clone(s.entries)
		s.mu.Unlock()
		for key, e := range all {
			if !yield(key, e.value) {
				return
			}
		}
	}
}

// Claim is Put only if key has no value, and returns the value that it has
// then: value if the caller has it now, another if it was claimed before. Of
// concurrent calls one wins. It is durable in both cases.
func (s *Set) Claim(key, value string, until time.Time) (string, error) {
	return s.store(key, entry{value, until.Unix()}, func(entry) bool { return false })
}

// store puts e unless key has an entry that replace refuses, and returns the value it has durably.
func (s *Set) store(key string, e entry, replace func(old entry) bool) (string, error) {
	if len(key) > MaxSetKey || len(e.value) > MaxSetValue {
		return "", fmt.Errorf("putting a key of %d and a value of %d bytes: %w", len(key), len(e.value), ErrTooLarge)
	}
	s.compact.RLock()
	defer s.compact.RUnlock()
	held, mark, err := s.append(key, e, replace)
	if err == nil {
		err = s.j.Commit(mark)
	}
	if err != nil {
		return "", fmt.Errorf("putting into a set: %w", err)
	}
	return held, nil
}

// append keeps the order of the file the order of memory.
func (s *Set) append(key string, e entry, replace func(old entry) bool) (string, Mark, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, had := s.entries[key]
	if had && !replace(old) {
		return old.value, s.j.Mark(), nil // its first Put may still be on its way to the disk
	}
	if err := s.put(key, e); err != nil {
		return "", 0, err
	}
	if err := s.j.Append(marshalEntry(key, e)); err != nil {
		s.undo(key, old, had)
		return "", 0, err
	}
	return e.value, s.j.Mark(), nil
}

func (s *Set) undo(key string, old entry, had bool) {
	s.delete(key)
	if had {
		s.entries[key] = old
		s.size += old.size(key)
	}
}

// Compact drops the entries whose time is past at now, and writes the file anew if
// at least half of it has become waste. A janitor should call it from time to time.
func (s *Set) Compact(now time.Time) error {
	s.compact.Lock()
	defer s.compact.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	dropped := 0
	for key, e := range s.entries {
		if e.until < now.Unix() {
			s.delete(key)
			dropped++
		}
	}
	file := s.j.Size()
	if dropped == 0 && (file < setCompactAt || file < 2*s.size) {
		return nil
	}
	if dropped > 0 && file < 2*s.size && dropped < len(s.entries) {
		return nil // dropped again at the next opening; not worth a new file yet
	}
	return s.rewrite()
}

func (s *Set) rewrite() error {
	j, err := writeAnew(s.dir, s.name, s.boot, func(add func(Record) error) error {
		for key, e := range s.entries {
			if err := add(marshalEntry(key, e)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("compacting a set: %w", err)
	}
	old := s.j
	s.j = j
	return old.Close()
}

// Close releases the file. All that was put is durable already.
func (s *Set) Close() error {
	s.compact.Lock()
	defer s.compact.Unlock()
	return s.j.Close()
}

// marshalEntry: until i64 | length of key u16 | key | value.
func marshalEntry(key string, e entry) Record {
	b := binary.LittleEndian.AppendUint64(nil, uint64(e.until))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(key)))
	return Record{setKind, append(append(b, key...), e.value...)}
}

func parseEntry(r Record) (string, entry, bool) {
	if r.Kind != setKind || len(r.Data) < 10 {
		return "", entry{}, false
	}
	until := int64(binary.LittleEndian.Uint64(r.Data))
	n := int(binary.LittleEndian.Uint16(r.Data[8:]))
	rest := string(r.Data[10:])
	if n > MaxSetKey || n > len(rest) || len(rest)-n > MaxSetValue {
		return "", entry{}, false
	}
	return rest[:n], entry{rest[n:], until}, true
}
