// Package storetest is the suite that every store passes. Each numbered test is
// an outcome that agent/store promises.
//
// The suite measures the traits once, on a subject of its own, and takes them for every other. A store that must be
// probed before it creates is probed by who opens the subject.
package storetest

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Subject is a new, empty store under test, and what only its maker can do to it. The
// functions fail the test themselves and may be called concurrently. The suite closes Store and
// every store that Kill and Second return, and each of them once.
type Subject struct {
	Store store.Store
	// Put makes name an object with these bytes, in place of any, as somebody outside does.
	Put func(t testing.TB, name token.ObjectName, data []byte)
	// Remove takes name away, as somebody outside does.
	Remove func(t testing.TB, name token.ObjectName)
	// Kill ends the process that uses Store and returns the store as its successor finds it, with
	// the same notes. It may be called again.
	Kill func(t testing.TB) store.Store

	// Link makes name a symbolic link to "o". Optional: nil where there are none.
	Link func(t testing.TB, name token.ObjectName)
	// Second opens the same place as another agent does: with a client and notes of its own. Optional: without it
	// two batches of one Store race.
	Second func(t testing.TB) store.Store
	// PutAttrs is Put with a content type and user metadata. Optional: nil where nobody outside can say them.
	PutAttrs func(t testing.TB, name token.ObjectName, data []byte, attrs store.Attrs)
	// Forge is Put with metadata, of somebody who may write to the place, that claims that the object were that
	// stage's. Optional: nil where origins are no metadata.
	Forge func(t testing.TB, name token.ObjectName, data []byte, origin store.Origin)

	// Order is the order of listings. Optional: BySegments.
	Order func(a, b token.ObjectName) int
	// Remote says that every call is a request to somebody else: a version never is Fresh, an old version may still be read, Open may leave
	// its errors to the first use, and under -short there are fewer races.
	Remote bool
	// Guesses says that after a kill a part which was never written may be said to be held, as in a file.
	Guesses bool
	// Streams says that a part which was written cannot be written again with other bytes: the stage is store.ErrLost then.
	Streams bool
	// Segment is how long a segment of a name may be, in bytes, before the store takes it and fails; 0 is none.
	Segment int
	// Torn says that what is read of an object, while somebody outside replaces it, may be of both, though it was pinned.
	Torn bool

	traits store.Traits
}

// BySegments is the order in which all below a directory comes together.
func BySegments(a, b token.ObjectName) int {
	return slices.Compare(strings.Split(string(a), "/"), strings.Split(string(b), "/"))
}

// ByBytes is the order of the names' bytes, as buckets list them.
func ByBytes(a, b token.ObjectName) int { return cmp.Compare(a, b) }

// Run runs the suite. Each test gets a new, empty subject from open, whose clock must
// be the real one.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	traits := measure(t, open(t))
	for _, tt := range tests() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			s.traits = traits
			if s.Order == nil {
				s.Order = BySegments
			}
			closeLater(t, s.Store)
			tt.run(t, s)
		})
	}
}

type test struct {
	name string
	run  func(t *testing.T, s Subject)
}

func tests() []test {
	return []test{
		{"01 published equals staged", publishedEqualsStaged},
		{"02 existing name is taken and stays", existingIsTaken},
		{"03 one of two racing batches wins", races},
		{"04 publishing again succeeds again", publishAgain},
		{"05 stage survives a kill", stageSurvives},
		{"06 published bytes cannot be written", sealed},
		{"07 parts stay within the item", outOfRange},
		{"08 discarded stage is created anew", discard},
		{"09 dropped batch leaves its objects", drop},
		{"10 stat outcomes", statOutcomes},
		{"11 open outcomes", openOutcomes},
		{"12 pinned read detects change", pinned},
		{"13 list order, resume, prefix, stop", listing},
		{"14 make outcomes", makeOutcomes},
		{"15 odd names are kept or refused", oddNames},
		{"16 many at once, each with its own outcome", many},
		{"17 batch in use is claimed", claimed},
		{"18 unfit stage publishes nothing", unfit},
		{"19 cancelled calls do nothing", cancelled},
		{"20 probe", probed},
		{"21 object in the place of a parent", parentIsObject},
		{"22 attributes", attributes},
		{"23 concurrent parts and publications", concurrent},
		{"24 links are described and not read", links},
		{"25 parts in any order, and twice", partsInAnyOrder},
		{"26 part that was not closed whole does not count", partNotClosed},
		{"27 publish after a kill without a stage", publishWithoutStage},
		{"28 small item after a kill", smallAfterKill},
		{"29 origin is what was published", origins},
		{"30 origin cannot be forged", forgedOrigin},
		{"31 metadata is kept exactly or lost", metadata},
		{"32 content type is kept exactly or lost", contentTypes},
		{"33 attributes of an item taken up again", attributesResumed},
		{"34 attributes from outside", attributesFromOutside},
		{"35 erase outcomes", eraseOutcomes},
		{"36 leftovers until drop", leftovers},
		{"37 sections", sections},
		{"38 pinned read while the name is replaced", pinnedWhileReplaced},
		{"39 same content from two batches", sameContent},
		{"40 large objects race", largeRaces},
		{"41 listing of 2,500 names", longListing},
		{"42 names vanish while they are listed", vanishing},
		{"43 stage is read again", reread},
		{"44 unmake outcomes", unmakeOutcomes},
		{"45 wipe outcomes", wipeOutcomes},
		{"46 wiped stages", wipedStages},
	}
}

// measure probes a subject that nothing else uses.
func measure(t *testing.T, s Subject) store.Traits {
	t.Helper()
	traits, err := s.Store.Probe(t.Context())
	if err != nil {
		t.Fatalf("Probe: %v", err)
	}
	if err := s.Store.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	return traits
}

func closeLater(t testing.TB, s store.Store) {
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

// kill ends the process that uses the store and returns its successor's.
func (s Subject) kill(t testing.TB) store.Store {
	t.Helper()
	after := s.Kill(t)
	if after != s.Store {
		closeLater(t, after)
	}
	return after
}

// both returns the store twice, as two agents have it where that can be.
func (s Subject) both(t testing.TB) [2]store.Store {
	t.Helper()
	if s.Second == nil {
		return [2]store.Store{s.Store, s.Store}
	}
	other := s.Second(t)
	closeLater(t, other)
	return [2]store.Store{s.Store, other}
}

// times is n, or less where each takes a request and the run shall be short.
func (s Subject) times(n int) int {
	if s.Remote && testing.Short() {
		return max(1, n/20)
	}
	return n
}

// Content returns size bytes that depend on seed.
func Content(seed, size int) []byte {
	b := make([]byte, size)
	x := uint32(seed)*2654435761 + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// Root is the digest of data.
func Root(data []byte) token.Digest {
	tree := chunk.NewTree(int64(len(data)))
	for i := range tree.Count() {
		off, n := chunk.Span(int64(len(data)), i)
		if err := tree.Add(i, chunk.Of(data[off:off+n], i, int64(len(data)))); err != nil {
			panic("storetest: internal error: " + err.Error())
		}
	}
	root, err := tree.Root()
	if err != nil {
		panic("storetest: internal error: " + err.Error())
	}
	return root
}

// part is the size of parts that suits the store.
func (s Subject) part() int { return int(max(s.traits.PartSize, token.ChunkSize)) }

// large is the size of an item of n parts, the last of which is odd. It is never small.
func (s Subject) large(n int) int { return (n-1)*s.part() + 4099 }

func (s Subject) item(index int, name token.ObjectName, size int) store.Item {
	return store.Item{Index: index, Name: name, Size: int64(size), Part: int64(s.part())}
}

func openBatch(t testing.TB, s store.Store, id store.BatchID) store.Batch {
	t.Helper()
	b, err := s.Batch(t.Context(), id)
	if err != nil {
		t.Fatalf("Batch(%q): %v", id, err)
	}
	return b
}

func openStage(t testing.TB, b store.Batch, it store.Item) store.Stage {
	t.Helper()
	st, err := b.Stage(t.Context(), it)
	if err != nil {
		t.Fatalf("Stage(%d, %q): %v", it.Index, it.Name, err)
	}
	return st
}

const piece = 100_003 // bytes of one Write, not aligned to anything

// writePart writes one part of data, which is the item's, in pieces, and closes it.
func writePart(t testing.TB, st store.Stage, it store.Item, part int64, data []byte) error {
	p, err := st.Part(t.Context(), part)
	if err != nil {
		return fmt.Errorf("Part(%d): %w", part, err)
	}
	off, n := it.Span(part)
	for b := range slices.Chunk(data[off:off+n], piece) {
		if _, err := p.Write(b); err != nil {
			p.Abort()
			return fmt.Errorf("Write to part %d: %w", part, err)
		}
	}
	if err := p.Close(); err != nil {
		return fmt.Errorf("Close of part %d: %w", part, err)
	}
	return nil
}

// stageWhole writes every part of an item and closes it.
func stageWhole(t testing.TB, b store.Batch, it store.Item, data []byte) {
	t.Helper()
	if err := tryStage(t, b, it, data); err != nil {
		t.Fatalf("staging item %d, %q: %v", it.Index, it.Name, err)
	}
}

func tryStage(t testing.TB, b store.Batch, it store.Item, data []byte) error {
	st, err := b.Stage(t.Context(), it)
	if err != nil {
		return err
	}
	for part := range it.Parts() {
		if err := writePart(t, st, it, part, data); err != nil {
			return err
		}
	}
	if err := st.Sync(); err != nil {
		return err
	}
	return st.Close()
}

func publication(it store.Item, data []byte) store.Publication {
	return store.Publication{Item: it, Root: Root(data)}
}

func publishOne(t testing.TB, b store.Batch, it store.Item, data []byte) store.Published {
	t.Helper()
	outs := b.Publish(t.Context(), []store.Publication{publication(it, data)})
	if len(outs) != 1 {
		t.Fatalf("Publish: got %d results, want 1", len(outs))
	}
	return outs[0]
}

// mustPublish stages and publishes an item in a batch that it drops.
func mustPublish(t testing.TB, s store.Store, id store.BatchID, it store.Item, data []byte) store.Published {
	t.Helper()
	b := openBatch(t, s, id)
	stageWhole(t, b, it, data)
	out := publishOne(t, b, it, data)
	if out.Err != nil {
		t.Fatalf("Publish(%q): %v", it.Name, out.Err)
	}
	mustDrop(t, b)
	return out
}

func mustDrop(t testing.TB, b store.Batch) {
	t.Helper()
	if err := b.Drop(t.Context()); err != nil {
		t.Fatalf("Drop: %v", err)
	}
}

// readSection reads n bytes from off on. What comes with an error is what was read before it.
func readSection(t testing.TB, r store.Reader, off, n int64) ([]byte, error) {
	sec, err := r.Section(t.Context(), off, n)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(sec, n+1))
	if int64(len(data)) > n {
		t.Errorf("a section of %d bytes from %d on returned more", n, off)
	}
	if cerr := sec.Close(); err == nil && cerr != nil {
		t.Errorf("closing a section: %v", cerr)
	}
	return data, err
}

// readPinned reads name whole at a version, and checks that it was.
func readPinned(t testing.TB, s store.Store, name token.ObjectName, version token.Version) ([]byte, error) {
	r, err := s.Open(t.Context(), name, version)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	in, err := r.Info(t.Context())
	if err != nil {
		return nil, err
	}
	data, err := readSection(t, r, 0, in.Size)
	if err != nil {
		return nil, err
	}
	return data, r.Check(t.Context())
}

// wantContent reads name as it is now.
func wantContent(t testing.TB, s store.Store, name token.ObjectName, want []byte) {
	t.Helper()
	in, err := s.Stat(t.Context(), name)
	if err != nil {
		t.Errorf("Stat(%q): %v", name, err)
		return
	}
	if in.Type != store.Object || in.Size != int64(len(want)) || in.Name != name {
		t.Errorf("Stat(%q): got %s %q of %d bytes, want an object of %d", name, in.Type, in.Name, in.Size, len(want))
		return
	}
	got, err := readPinned(t, s, name, in.Version)
	if err != nil {
		t.Errorf("reading %q: %v", name, err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("content of %q differs", name)
	}
}

func wantProblem(t testing.TB, what string, err error, want ...problem.Code) {
	t.Helper()
	if got := problem.Of(err); err == nil || !slices.Contains(want, got) {
		t.Errorf("%s: got %q (%v), want %q", what, got, err, want)
	}
}

func wantMissing(t testing.TB, s store.Store, name token.ObjectName) {
	t.Helper()
	_, err := s.Stat(t.Context(), name)
	wantProblem(t, fmt.Sprintf("Stat(%q)", name), err, problem.Missing)
}
