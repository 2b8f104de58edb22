package dir

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// List implements store.Lister. The order is by segments, each by its bytes, so that all
// below a directory comes together. A directory is listed only when it is
// empty or cannot be entered. That a file cannot be read is found out by Open.
func (s *Store) List(ctx context.Context, prefix, after token.ObjectName, yield func(store.Info, error) bool) error {
	root := "."
	if prefix != "" {
		if err := checkName(prefix); err != nil {
			return err
		}
		root = string(prefix)
	}
	d, err := s.root.OpenDir(root)
	if errors.Is(err, syscall.ENOTDIR) {
		return problem.Wrap(err, problem.Missing, "There is nothing below %q: it is an object, or below one.", prefix)
	}
	if err != nil {
		return readError(err, prefix)
	}
	defer d.Close()
	w := &walk{s: s, ctx: ctx, yield: yield}
	rest, skip := below(prefix, after)
	if skip {
		return nil
	}
	w.directory(d, prefix, rest)
	return w.err
}

// below returns what of after lies below prefix, and whether all of prefix is before it.
func below(prefix, after token.ObjectName) (rest string, skip bool) {
	if prefix == "" || after == "" {
		return string(after), false
	}
	if tail, ok := strings.CutPrefix(string(after), string(prefix)+"/"); ok {
		return tail, false
	}
	return "", compareNames(string(prefix), string(after)) < 0
}

// compareNames is the order of List.
func compareNames(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

// A walk is one call of List.
type walk struct {
	s     *Store
	ctx   context.Context
	yield func(store.Info, error) bool
	held  int   // names in memory, of all levels
	err   error // of the context
	done  bool  // yield asked to stop
}

func (w *walk) tell(in store.Info, err error) bool {
	if w.err = w.ctx.Err(); w.err != nil || !w.yield(in, err) {
		w.done = true
	}
	return !w.done
}

// An entry is a name in a directory and where it stands in the order: bad names
// stand where their escaped form does, behind a good one of the same form.
type listed struct {
	name string
	key  string
	bad  bool
}

func compareListed(a, b listed) int {
	return cmp.Or(cmp.Compare(a.key, b.key), compareBool(a.bad, b.bad), cmp.Compare(a.name, b.name))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// directory yields all below d, whose name is at, that comes after rest, and
// reports whether to go on and whether d had any entries.
func (w *walk) directory(d disk.FS, at token.ObjectName, rest string) (goOn, some bool) {
	first, deeper, _ := strings.Cut(rest, "/")
	cursor := listed{}
	for {
		size := max(w.s.names-w.held, minNames)
		if w.s.names < minNames {
			size = w.s.names
		}
		batch, more, err := w.read(d, at, cursor, first, size)
		if err != nil {
			return w.tell(store.Info{Name: at, Type: store.Subtree}, readError(err, at)), true
		}
		some = some || len(batch) > 0
		w.held += len(batch)
		for _, e := range batch {
			sub := ""
			if e.key == first {
				sub = deeper
			}
			if rest != "" && e.key == first && e.bad {
				continue // told before
			}
			if !w.entry(d, at, e, sub, rest != "" && e.key == first) {
				w.held -= len(batch)
				return false, true
			}
		}
		w.held -= len(batch)
		if !more {
			return true, some
		}
		cursor = batch[len(batch)-1]
	}
}

// entry yields e and what is below it. If told, e itself was yielded before or is before what was.
func (w *walk) entry(d disk.FS, at token.ObjectName, e listed, rest string, told bool) bool {
	name := join(at, e.key)
	if e.bad && at != "" && strings.EqualFold(e.name, hidden) {
		return w.tell(store.Info{Name: name, Type: store.Special}, nil)
	}
	if e.bad {
		err := checkName(join(at, e.name))
		if err == nil {
			err = problem.New(problem.BadName, "The name cannot be listed.")
		}
		return w.tell(store.Info{Name: name}, err)
	}
	st, err := d.Lstat(e.name)
	if errors.Is(err, fs.ErrNotExist) {
		return true // gone since it was read
	}
	if err != nil {
		return told || w.tell(store.Info{Name: name}, readError(err, name))
	}
	in := w.s.info(name, st)
	if st.Type != disk.Directory {
		return told || w.tell(in, nil)
	}
	sub, err := d.OpenDir(e.name)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP):
		return true // changed since it was described; it is no object either way
	case err != nil:
		return told || w.tell(in, readError(err, name))
	}
	defer sub.Close()
	goOn, some := w.directory(sub, name, rest)
	if goOn && !some && !told {
		return w.tell(in, nil)
	}
	return goOn
}

// read returns the size smallest names of d that come after cursor and not before
// first, in order, and whether there are more.
func (w *walk) read(d disk.FS, at token.ObjectName, cursor listed, first string, size int) ([]listed, bool, error) {
	h := &largest{}
	more := false
	err := d.Names(func(name string) bool {
		e := classify(at, name)
		if at == "" && name == hidden || e.key < first || cursor.key != "" && compareListed(e, cursor) <= 0 {
			return true
		}
		if len(*h) == size {
			more = true
			if compareListed(e, (*h)[0]) >= 0 {
				return w.ctx.Err() == nil
			}
			heap.Pop(h)
		}
		heap.Push(h, e)
		return w.ctx.Err() == nil
	})
	slices.SortFunc(*h, compareListed)
	return *h, more, err
}

// classify finds the place of a name in the order.
func classify(at token.ObjectName, name string) listed {
	if checkName(join(at, name)) == nil {
		return listed{name: name, key: name}
	}
	return listed{name: name, key: escape(name), bad: true}
}

// escape writes a name so that it can be shown: what is not printable ASCII, and '%' and '\', as %XX.
func escape(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == '%' || c == '\\' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func join(at token.ObjectName, seg string) token.ObjectName {
	if at == "" {
		return token.ObjectName(seg)
	}
	return at + "/" + token.ObjectName(seg)
}

// largest is a heap with the last name on top.
type largest []listed

func (h largest) Len() int           { return len(h) }
func (h largest) Less(i, j int) bool { return compareListed(h[i], h[j]) > 0 }
func (h largest) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *largest) Push(x any)        { *h = append(*h, x.(listed)) }
func (h *largest) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}
