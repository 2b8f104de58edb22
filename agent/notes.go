package agent

import (
	"iter"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
)

// stagesFile is the set of what the stores have begun and must find again, in the state directory.
const stagesFile = "stages"

// notes are one container's part of the set: its keys have the container in front.
type notes struct {
	set    *journal.Set
	prefix string
}

var _ store.Notes = notes{}

func newNotes(set *journal.Set, c token.Container) notes { return notes{set, notePrefix(c)} }

// notePrefix ends in what no container's name holds.
func notePrefix(c token.Container) string { return string(c) + "\x00" }

// Put implements store.Notes. Notes have no end but Remove.
func (n notes) Put(key, value string) error {
	return n.set.Put(n.prefix+key, value, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))
}

// Get implements store.Notes.
func (n notes) Get(key string) (string, bool) { return n.set.Get(n.prefix + key) }

// Remove implements store.Notes.
func (n notes) Remove(key string) error { return n.set.Remove(n.prefix + key) }

// All implements store.Notes.
func (n notes) All() iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		for key, value := range n.set.All() {
			if rest, ok := strings.CutPrefix(key, n.prefix); ok && !yield(rest, value) {
				return
			}
		}
	}
}

// copied are notes that another process keeps, as they were. What is changed of them is forgotten.
type copied struct {
	mu     sync.Mutex // guards values
	values map[string]string
}

var _ store.Notes = (*copied)(nil)

// copyNotes takes one container's notes out of what was read of the set.
func copyNotes(set map[string]string, c token.Container) *copied {
	n := &copied{values: map[string]string{}}
	for key, value := range set {
		if rest, ok := strings.CutPrefix(key, notePrefix(c)); ok {
			n.values[rest] = value
		}
	}
	return n
}

// Put implements store.Notes but for being durable.
func (n *copied) Put(key, value string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.values[key] = value
	return nil
}

// Get implements store.Notes.
func (n *copied) Get(key string) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	value, ok := n.values[key]
	return value, ok
}

// Remove implements store.Notes.
func (n *copied) Remove(key string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.values, key)
	return nil
}

// All implements store.Notes.
func (n *copied) All() iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		n.mu.Lock()
		all := maps.Clone(n.values)
		n.mu.Unlock()
		for key, value := range all {
			if !yield(key, value) {
				return
			}
		}
	}
}
