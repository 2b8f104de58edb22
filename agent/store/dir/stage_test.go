package dir

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/storetest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func memStore(t *testing.T) (*disk.Mem, *Store, store.Batch) {
	t.Helper()
	m := disk.NewMem(time.Now)
	s := Open(m.Root(), time.Now)
	b, err := s.Batch(t.Context(), "x-1")
	if err != nil {
		t.Fatal(err)
	}
	return m, s, b
}

func begin(t *testing.T, st store.Stage, index int64) store.Part {
	t.Helper()
	p, err := st.Part(t.Context(), index)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestTwoWritersOfAPart: the one that began last has the part, whatever the other does.
func TestTwoWritersOfAPart(t *testing.T) {
	t.Parallel()
	_, s, b := memStore(t)
	it := store.Item{Name: "x", Size: 3000, Part: 1000}
	st, err := b.Stage(t.Context(), it)
	if err != nil {
		t.Fatal(err)
	}
	young, old := storetest.Content(1, 1000), storetest.Content(2, 1000)
	first := begin(t, st, 1)
	if _, err := first.Write(old[:500]); err != nil {
		t.Fatal(err)
	}
	second := begin(t, st, 1)
	if _, err := first.Write(old[500:]); err == nil {
		t.Error("Write of the first writer: got nil, want an error")
	}
	if _, err := second.Write(young); err != nil {
		t.Error(err)
	}
	if err := first.Close(); err == nil || st.Holds(1) {
		t.Errorf("Close of the first writer: got %v, and held %v", err, st.Holds(1))
	}
	if err := second.Close(); err != nil || !st.Holds(1) {
		t.Errorf("Close of the second writer: got %v, and held %v", err, st.Holds(1))
	}
	for _, k := range []int64{0, 2} {
		if err := writePart(t.Context(), st, k, young); err != nil {
			t.Fatal(err)
		}
	}
	if out := b.Publish(t.Context(), []store.Publication{{Item: it}})[0]; out.Err != nil {
		t.Fatal(out.Err)
	}
	wantBytes(t, s, "x", slices.Concat(young, young, young))
}

// TestManyWritersOfAPart lets writers of different bytes fight for one part: it is one writer's, whole.
func TestManyWritersOfAPart(t *testing.T) {
	t.Parallel()
	const size = 64 << 10
	s := openReal(t, quickDir(t))
	b, err := s.Batch(t.Context(), "x-1")
	if err != nil {
		t.Fatal(err)
	}
	var contents [4][]byte
	for i := range contents {
		contents[i] = storetest.Content(i, size)
	}
	for round := range 30 {
		it := store.Item{Index: round, Name: token.ObjectName(fmt.Sprint("x", round)), Size: size, Part: token.ChunkSize}
		st, err := b.Stage(t.Context(), it)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for _, c := range contents {
			wg.Go(func() {
				p, err := st.Part(t.Context(), 0)
				if err != nil {
					t.Error(err)
					return
				}
				for piece := range slices.Chunk(c, 1000) {
					_, _ = p.Write(piece) // another may have taken the part
				}
				_ = p.Close()
			})
		}
		wg.Wait()
		if !st.Holds(0) {
			t.Error("nobody's part counts")
		}
		out := b.Publish(t.Context(), []store.Publication{{Item: it}})[0]
		if out.Err != nil {
			t.Fatal(out.Err)
		}
		r, err := s.Open(t.Context(), it.Name, out.Info.Version)
		if err != nil {
			t.Fatal(err)
		}
		got, err := readAll(t.Context(), r, size)
		if err != nil || !slices.ContainsFunc(contents[:], func(c []byte) bool { return bytes.Equal(c, got) }) {
			t.Errorf("round %d: %v, and the content is no writer's", round, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func wantBytes(t *testing.T, s *Store, name token.ObjectName, want []byte) {
	t.Helper()
	in, err := s.Stat(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), name, in.Version)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := readAll(t.Context(), r, in.Size); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q: got %d bytes, %v, want other content", name, len(got), err)
	}
}

// TestPartOpenAtPublish: what is still open when Publish is called writes nothing more, and an item
// of which a part is half written is not published.
func TestPartOpenAtPublish(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		_, s, b := memStore(t)
		it := store.Item{Name: "x", Size: 1000, Part: 1000}
		st, err := b.Stage(t.Context(), it)
		if err != nil {
			t.Fatal(err)
		}
		data, evil := storetest.Content(1, 1000), storetest.Content(2, 1000)
		if err := writePart(t.Context(), st, 0, data); err != nil {
			t.Fatal(err)
		}
		p := begin(t, st, 0)
		if again {
			if _, err := p.Write(evil[:10]); err != nil {
				t.Fatal(err)
			}
		}
		out := b.Publish(t.Context(), []store.Publication{{Item: it}})[0]
		if again != errors.Is(out.Err, store.ErrLost) || !again && out.Err != nil {
			t.Errorf("half written %v: Publish: got %v", again, out.Err)
		}
		if _, err := p.Write(evil[:10]); err == nil {
			t.Error("Write after Publish: got nil, want an error")
		}
		if err := p.Close(); err == nil {
			t.Error("Close after Publish: got nil, want an error")
		}
		if !again {
			wantBytes(t, s, "x", data)
			continue
		}
		// As ErrLost asks for: discard, stage anew.
		if _, err := st.Part(t.Context(), 0); err == nil {
			t.Error("Part after Publish: got nil, want an error")
		}
		if err := st.Discard(t.Context()); err != nil {
			t.Fatal(err)
		}
		stageWhole(t, b, it, data)
		if out := b.Publish(t.Context(), []store.Publication{{Item: it}})[0]; out.Err != nil {
			t.Fatal(out.Err)
		}
		wantBytes(t, s, "x", data)
	}
}

// TestWhatIsNotWholeStaysSo: closing a stage does not make its parts whole.
func TestWhatIsNotWholeStaysSo(t *testing.T) {
	t.Parallel()
	_, s, b := memStore(t)
	it := store.Item{Name: "x", Size: 3000, Part: 1000}
	data := storetest.Content(1, 3000)
	for round := range 3 {
		st, err := b.Stage(t.Context(), it)
		if err != nil {
			t.Fatal(err)
		}
		for k := range int64(3) {
			if got, want := st.Holds(k), k < int64(round); got != want {
				t.Errorf("round %d: Holds(%d): got %v, want %v", round, k, got, want)
			}
		}
		k := int64(round)
		if err := writePart(t.Context(), st, k, data[k*1000:(k+1)*1000]); err != nil {
			t.Fatal(err)
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(b.(*batch).unfinished); n != 0 {
		t.Errorf("%d items are remembered as unfinished, want none", n)
	}
	if out := b.Publish(t.Context(), []store.Publication{{Item: it}})[0]; out.Err != nil {
		t.Fatal(out.Err)
	}
	wantBytes(t, s, "x", data)
}

// TestProgressAgainstAMap compares the marks with a map of parts.
func TestProgressAgainstAMap(t *testing.T) {
	t.Parallel()
	const n = 300
	for _, made := range []bool{false, true} {
		pr := newProgress(store.Item{Size: n, Part: 1}, made)
		want := map[int64]bool{}
		for part := range int64(n) {
			want[part] = !made
		}
		rng := rand.New(rand.NewPCG(1, 2))
		for step := range 5000 {
			part, counts := rng.Int64N(n), rng.IntN(3) > 0 == (step/1000%2 == 0)
			pr.set(part, counts)
			want[part] = counts
			whole := true
			for part, w := range want {
				if whole = whole && w; pr.holds(part) != w {
					t.Fatalf("made %v, step %d: part %d is held: %v, want %v", made, step, part, !w, w)
				}
			}
			if pr.whole() != whole {
				t.Fatalf("made %v, step %d: whole: got %v", made, step, !whole)
			}
		}
	}
}

// TestLostAnswerOfLink: a file system says that the name exists because it made it itself, as NFS does when it
// sends a LINK again.
func TestLostAnswerOfLink(t *testing.T) {
	t.Parallel()
	m, s, b := memStore(t)
	it := store.Item{Name: "x", Size: 4, Part: token.ChunkSize}
	stageWhole(t, b, it, []byte("ours"))
	m.ResetCalls()
	m.SetHook(disk.FailNth(disk.OpLink, 0, disk.Verdict{Err: syscall.EEXIST, Effect: disk.Done}))
	if out := b.Publish(t.Context(), []store.Publication{{Item: it}})[0]; out.Err != nil {
		t.Errorf("Publish: got %v, want success", out.Err)
	}
	m.SetHook(nil)
	wantBytes(t, s, "x", []byte("ours"))
}

// TestEraseIsDurable cuts the power after Erase.
func TestEraseIsDurable(t *testing.T) {
	t.Parallel()
	m, s, b := memStore(t)
	it := store.Item{Name: "d/x", Size: 4, Part: token.ChunkSize}
	stageWhole(t, b, it, []byte("four"))
	out := b.Publish(t.Context(), []store.Publication{{Item: it}})[0]
	if out.Err != nil {
		t.Fatal(out.Err)
	}
	if err := b.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Erase(t.Context(), "d/x", out.Info.Version); err != nil {
		t.Fatal(err)
	}
	m.Crash(nil)
	if _, err := Open(m.Root(), time.Now).Stat(t.Context(), "d/x"); problem.Of(err) != problem.Missing {
		t.Errorf("Stat after a power cut: got %v, want missing", err)
	}
}

// TestLeftoversOfABatch names each stage, and a batch that has none.
func TestLeftoversOfABatch(t *testing.T) {
	t.Parallel()
	_, s, b := memStore(t)
	if got := leftBehind(t, s); !slices.Equal(got, []string{"x-1"}) {
		t.Errorf("an empty batch: got %q", got)
	}
	for i := range 3 {
		stageWhole(t, b, store.Item{Index: i, Name: "x", Size: 4, Part: token.ChunkSize}, []byte("four"))
	}
	pub := store.Publication{Item: store.Item{Index: 1, Name: "x", Size: 4, Part: token.ChunkSize}}
	if out := b.Publish(t.Context(), []store.Publication{pub})[0]; out.Err != nil {
		t.Fatal(out.Err)
	}
	got := leftBehind(t, s)
	if slices.Sort(got); !slices.Equal(got, []string{"x-1/0", "x-1/2"}) {
		t.Errorf("three stages, one published: got %q", got)
	}
}

// lyingFS replaces names when it links.
type lyingFS struct {
	disk.FS
	mu *sync.Mutex
}

func lie(d disk.FS, err error, mu *sync.Mutex) (disk.FS, error) {
	if err != nil {
		return nil, err
	}
	return &lyingFS{d, mu}, nil
}

func (l *lyingFS) OpenDir(path string) (disk.FS, error) {
	d, err := l.FS.OpenDir(path)
	return lie(d, err, l.mu)
}

func (l *lyingFS) Link(name string, to disk.FS, newname string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	target := to.(*lyingFS).FS
	if err := target.Remove(newname); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return l.FS.Link(name, target, newname)
}

// TestStoreThatReplaces is refused, tells its traits, and then is looked at before each link.
func TestStoreThatReplaces(t *testing.T) {
	t.Parallel()
	m := disk.NewMem(time.Now)
	s := Open(&lyingFS{m.Root(), &sync.Mutex{}}, time.Now)
	traits, err := s.Probe(t.Context())
	if problem.Of(err) != problem.NotExclusive || traits.Exclusive != "" || traits.PartSize != token.ChunkSize || !traits.Modes || !traits.ModTimes {
		t.Errorf("Probe: got %+v, %v, want %s and the other traits", traits, err, problem.NotExclusive)
	}
	if got := storetest.Names(t, s, "", ""); len(got) != 0 {
		t.Errorf("Probe left %q", got)
	}
	for i, want := range []error{nil, problem.New(problem.Taken, "")} {
		out := publish(t, s, store.BatchID(fmt.Sprint("b-", i)), "x")[0]
		if problem.Of(out.Err) != problem.Of(want) {
			t.Errorf("Publish %d: got %v, want %v", i, out.Err, want)
		}
	}
}

func TestProbeIsQuick(t *testing.T) {
	t.Parallel()
	s := openReal(t, t.TempDir())
	start := time.Now()
	traits, err := s.Probe(t.Context())
	want := store.Traits{
		Exclusive: "link", PartSize: token.ChunkSize, MaxParts: 1<<31 - 1, Lists: true, Rereads: true, Modes: true, ModTimes: true,
	}
	if err != nil || traits != want {
		t.Errorf("Probe: got %+v, %v, want %+v", traits, err, want)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("Probe took %v: far more than the second that it may on a quiet machine", took)
	} else {
		t.Logf("Probe took %v", took)
	}
}
