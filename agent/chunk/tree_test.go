package chunk

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestAddHeldChunk(t *testing.T) {
	t.Parallel()
	a, b := Value{1}, Value{2}
	for _, tc := range []struct {
		name  string
		size  int64
		held  map[int64]Value
		index int64
		v     Value
		want  error
	}{
		{"the same value", 5 * Size, map[int64]Value{1: a}, 1, a, nil},
		{"another value", 5 * Size, map[int64]Value{1: a}, 1, b, ErrDiffers},
		{"the same value, merged", 5 * Size, map[int64]Value{0: a, 1: a}, 1, a, ErrMerged},
		{"another value, merged", 5 * Size, map[int64]Value{0: a, 1: a}, 1, b, ErrMerged},
		{"below", 5 * Size, nil, -1, a, ErrRange},
		{"behind", 5 * Size, nil, 5, a, ErrRange},
		{"behind the only one", 0, nil, 1, a, ErrRange},
	} {
		tree := NewTree(tc.size)
		for i, v := range tc.held {
			if err := tree.Add(i, v); err != nil {
				t.Fatalf("%s: adding %d: %v", tc.name, i, err)
			}
		}
		if err := tree.Add(tc.index, tc.v); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
		if got, _ := tree.Held(); got != int64(len(tc.held)) {
			t.Errorf("%s: got %d chunks held, want %d", tc.name, got, len(tc.held))
		}
	}
}

func TestRootOfAnIncompleteTree(t *testing.T) {
	t.Parallel()
	tree := NewTree(3 * Size)
	for i := range int64(2) {
		if got, err := tree.Root(); !errors.Is(err, ErrIncomplete) || got != "" {
			t.Errorf("%d held: got %q, %v, want ErrIncomplete", i, got, err)
		}
		if err := tree.Add(i, Value{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if tree.Complete() {
		t.Error("complete with a chunk missing")
	}
}

func TestHeldBytes(t *testing.T) {
	t.Parallel()
	tree := NewTree(2*Size + 7)
	for _, tc := range []struct{ add, chunks, bytes int64 }{{2, 1, 7}, {0, 2, Size + 7}, {1, 3, 2*Size + 7}} {
		if err := tree.Add(tc.add, Value{}); err != nil {
			t.Fatal(err)
		}
		if chunks, bytes := tree.Held(); chunks != tc.chunks || bytes != tc.bytes {
			t.Errorf("after %d: got %d chunks, %d bytes, want %d, %d", tc.add, chunks, bytes, tc.chunks, tc.bytes)
		}
	}
}

// Against a model with one state a chunk: no chunk is lent twice, none is lost.
func TestTakeReleaseAddAgainstAModel(t *testing.T) {
	t.Parallel()
	const seed = 7
	pick := rand.New(rand.NewPCG(seed, 1))
	type state byte
	const (
		missing state = iota
		flying
		held
	)
	for range 300 {
		count := 1 + pick.Int64N(90)
		tree, model := NewTree(count*Size), make([]state, count)
		for range 400 {
			switch pick.IntN(4) {
			case 0:
				first, n, ok := tree.TakeMissing(pick.IntN(9))
				for i := first; ok && i < first+n; i++ {
					if model[i] != missing {
						t.Fatalf("seed %d: chunk %d was lent in state %d", seed, i, model[i])
					}
					model[i] = flying
				}
				for i := range first {
					if ok && model[i] == missing {
						t.Fatalf("seed %d: took %d although %d was missing", seed, first, i)
					}
				}
			case 1:
				first, n := pick.Int64N(count+4)-2, pick.Int64N(12)
				tree.Release(first, n)
				for i := max(first, 0); i < min(first+n, count); i++ {
					if model[i] == flying {
						model[i] = missing
					}
				}
			default:
				i := pick.Int64N(count)
				if model[i] == held {
					continue
				}
				if err := tree.Add(i, Value{byte(i)}); err != nil {
					t.Fatal(err)
				}
				model[i] = held
			}
			checkModel(t, tree, func(i int64) (bool, bool) { return model[i] == held, model[i] != missing })
		}
	}
}

func checkModel(t *testing.T, tree *Tree, at func(int64) (held, busy bool)) {
	t.Helper()
	for i := range tree.Count() {
		held, busy := at(i)
		if tree.Has(i) != held || tree.busy.has(i) != busy {
			t.Fatalf("chunk %d: got held %t, busy %t, want %t, %t", i, tree.Has(i), tree.busy.has(i), held, busy)
		}
	}
	for _, rs := range []runs{tree.held, tree.busy} {
		for i, r := range rs {
			if r.lo >= r.hi || i > 0 && rs[i-1].hi >= r.lo {
				t.Fatalf("runs overlap, touch or are empty: %v", rs)
			}
		}
	}
}

// Parts are lent whole and on their borders, whatever else is held, and none twice; in order, if they come back in order.
func TestTakePartAgainstAModel(t *testing.T) {
	t.Parallel()
	const seed = 11
	pick := rand.New(rand.NewPCG(seed, 2))
	for range 300 {
		count, unit := 1+pick.Int64N(90), int64(1)<<pick.IntN(5)
		tree, state := NewTree(count*Size), make([]byte, (count+unit-1)/unit) // 0 missing, 1 flying, 2 held
		span := func(part int64) (first, n int64) { return part * unit, min(unit, count-part*unit) }
		for range 300 {
			part := pick.Int64N(int64(len(state)))
			first, n := span(part)
			switch pick.IntN(3) {
			case 0:
				got, n, ok := tree.TakePart(unit)
				want := slices.Index(state, 0)
				if ok != (want >= 0) {
					t.Fatalf("seed %d: got a part: %t; the first that is missing is %d", seed, ok, want)
				}
				if !ok {
					continue
				}
				if first, most := span(int64(want)); got != first || n != most {
					t.Fatalf("seed %d: got %d+%d, want %d+%d", seed, got, n, first, most)
				}
				state[want] = 1
			case 1:
				if tree.Release(first, n); state[part] == 1 {
					state[part] = 0
				}
			default:
				for i := first; state[part] != 2 && i < first+n; i++ {
					if err := tree.Add(i, Value{byte(i)}); err != nil {
						t.Fatal(err)
					}
				}
				state[part] = 2
			}
			checkModel(t, tree, func(i int64) (bool, bool) { return state[i/unit] == 2, state[i/unit] != 0 })
		}
	}
	tree := NewTree(8 * Size)
	if err := tree.Add(1, Value{}); err != nil {
		t.Fatal(err)
	}
	if first, n, ok := tree.TakePart(4); first != 4 || n != 4 || !ok {
		t.Errorf("with a hole in the first part: got %d+%d %t, want 4+4", first, n, ok)
	}
	for _, unit := range []int64{0, -1, 4} {
		if _, _, ok := tree.TakePart(unit); ok {
			t.Errorf("unit %d: got a part, want none", unit)
		}
	}
}

func TestTakeMissingNeverGivesNothing(t *testing.T) {
	t.Parallel()
	tree := NewTree(3 * Size)
	for _, max := range []int{0, -1} {
		if _, _, ok := tree.TakeMissing(max); ok {
			t.Errorf("max %d: got a run, want none", max)
		}
	}
	if first, n, ok := tree.TakeMissing(16); first != 0 || n != 3 || !ok {
		t.Errorf("got %d+%d %t, want 0+3", first, n, ok)
	}
	if _, _, ok := tree.TakeMissing(16); ok {
		t.Error("everything is in flight, and yet a run was lent")
	}
}

// Eight lanes fill 10 TB: what the tree keeps stays within its stated bound. A short run
// fills a tenth of it.
func TestTenTerabytesInSmallMemory(t *testing.T) {
	t.Parallel()
	const lanes, want = 8, 16
	count := int64(10_000_000)
	if testing.Short() {
		count /= 10
	}
	tree := NewTree(count * Size)
	type span struct{ first, n int64 }
	var flying []span
	pick := rand.New(rand.NewPCG(9, 9))
	for !tree.Complete() {
		for len(flying) < lanes {
			first, n, ok := tree.TakeMissing(want)
			if !ok {
				break
			}
			flying = append(flying, span{first, n})
		}
		lane := pick.IntN(len(flying))
		s := &flying[lane]
		if err := tree.Add(s.first, Value{byte(s.first)}); err != nil {
			t.Fatal(err)
		}
		if s.first, s.n = s.first+1, s.n-1; s.n == 0 {
			flying = append(flying[:lane], flying[lane+1:]...)
		}
		if s := len(tree.held); s > 40*lanes {
			t.Fatalf("%d runs are held with %d lanes", s, lanes)
		}
		if v, bound := len(tree.values), 2*24*(len(tree.held)+1); v > bound {
			t.Fatalf("%d values are kept for %d runs, want at most %d", v, len(tree.held), bound)
		}
	}
	if _, err := tree.Root(); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkAddInOrder(b *testing.B) {
	tree := NewTree(MaxSize)
	b.ReportAllocs()
	var i int64
	for b.Loop() {
		if err := tree.Add(i, Value{}); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
