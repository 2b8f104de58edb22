package chunk

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/consign-transfer/consign/token"
	"lukechampine.com/blake3"
)

// edges are the sizes at which a tree changes its shape.
func edges() []int64 {
	sizes := []int64{0, 1, 63, 64, 65}
	for _, unit := range []int64{1 << 10, 2 << 10, 8 << 10, 9 << 10, groupSize, 2 * groupSize, 3 * groupSize, Size / 2, Size, 2 * Size, 3 * Size, 4 * Size, 5 * Size, 7 * Size, 8 * Size, 9 * Size} {
		for d := int64(-2); d <= 2; d++ {
			sizes = append(sizes, unit+d)
		}
		sizes = append(sizes, unit+1023, unit+1024, unit+1025)
	}
	return sizes
}

func randomBytes(rng *rand.ChaCha8, n int64, slack int) []byte {
	b := make([]byte, n, n+int64(slack))
	rng.Read(b)
	return b
}

func wantDigest(content []byte) token.Digest {
	sum := blake3.Sum256(content)
	return token.Digest("blake3:" + hex.EncodeToString(sum[:]))
}

// rootInOrder adds the chunks of content to a new tree in the given order.
func rootInOrder(t testing.TB, content []byte, order []int) token.Digest {
	t.Helper()
	size := int64(len(content))
	tree := NewTree(size)
	for _, i := range order {
		off, n := Span(size, int64(i))
		if err := tree.Add(int64(i), Of(content[off:off+n], int64(i), size)); err != nil {
			t.Fatalf("adding chunk %d of %d bytes: %v", i, size, err)
		}
	}
	got, err := tree.Root()
	if err != nil {
		t.Fatalf("root of %d bytes: %v", size, err)
	}
	return got
}

func TestRootIsBlake3AtEdges(t *testing.T) {
	t.Parallel()
	rng := rand.NewChaCha8([32]byte{1})
	for _, size := range edges() {
		for _, slack := range []int{0, 100, Slack} {
			content := randomBytes(rng, size, slack)
			order := make([]int, Count(size))
			for i := range order {
				order[i] = len(order) - 1 - i
			}
			if got, want := rootInOrder(t, content, order), wantDigest(content); got != want {
				t.Errorf("size %d, slack %d: got %s, want %s", size, slack, got, want)
			}
		}
	}
}

func TestRootIsBlake3AtRandomSizesInAnyOrder(t *testing.T) {
	t.Parallel()
	const seed = 20261123
	rng, pick := rand.NewChaCha8([32]byte{2}), rand.New(rand.NewPCG(seed, 0))
	content := randomBytes(rng, 12*Size, Slack)
	for range 1200 {
		size := pick.Int64N(12 * Size)
		if pick.IntN(4) > 0 {
			size >>= pick.IntN(20)
		}
		order := pick.Perm(int(Count(size)))
		if got, want := rootInOrder(t, content[:size], order), wantDigest(content[:size]); got != want {
			t.Fatalf("seed %d, size %d, order %v: got %s, want %s", seed, size, order, got, want)
		}
	}
}

// The value of a chunk must not depend on what lies behind it in the buffer.
func TestSlackDoesNotMatter(t *testing.T) {
	t.Parallel()
	rng := rand.NewChaCha8([32]byte{3})
	for _, n := range []int64{1, 1024, 1025, 8192, 8193, groupSize - 1, groupSize + 1, Size - 1} {
		whole := randomBytes(rng, n+Slack, 0)
		bare := append([]byte(nil), whole[:n]...)
		if got, want := Of(whole[:n], 1, Size+n), Of(bare[:n:n], 1, Size+n); got != want {
			t.Errorf("%d bytes: got %x with slack, want %x", n, got, want)
		}
	}
}

func TestOfTellsPositionAndContent(t *testing.T) {
	t.Parallel()
	content := randomBytes(rand.NewChaCha8([32]byte{4}), Size, Slack)
	seen := map[Value]string{}
	note := func(what string, v Value) {
		if was, ok := seen[v]; ok {
			t.Errorf("%s has the value of %s", what, was)
		}
		seen[v] = what
	}
	note("alone", Of(content, 0, Size))
	note("first of two", Of(content, 0, 2*Size))
	note("second of two", Of(content, 1, 2*Size))
	for _, bit := range []int{0, 8*groupSize - 1, 8*Size - 1} {
		content[bit/8] ^= 1 << (bit % 8)
		note(fmt.Sprintf("bit %d flipped", bit), Of(content, 0, 2*Size))
		content[bit/8] ^= 1 << (bit % 8)
	}
}

func TestCountAndSpan(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ size, count, lastOff, lastLen int64 }{
		{0, 1, 0, 0},
		{1, 1, 0, 1},
		{Size, 1, 0, Size},
		{Size + 1, 2, Size, 1},
		{3 * Size, 3, 2 * Size, Size},
		{10_000_000 * Size, 10_000_000, 9_999_999 * Size, Size},
		{MaxSize, 1 << 40, MaxSize - (Size - 1), Size - 1},
	} {
		if got := Count(tc.size); got != tc.count {
			t.Errorf("Count(%d): got %d, want %d", tc.size, got, tc.count)
		}
		if off, n := Span(tc.size, tc.count-1); off != tc.lastOff || n != tc.lastLen {
			t.Errorf("Span(%d, last): got %d+%d, want %d+%d", tc.size, off, n, tc.lastOff, tc.lastLen)
		}
	}
}

func TestMisuseIsNotSilent(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]func(){
		"negative size":  func() { Count(-1) },
		"huge size":      func() { Count(MaxSize + 1) },
		"negative index": func() { Span(1, -1) },
		"index behind":   func() { Span(Size, 1) },
		"short content":  func() { Of(make([]byte, Size-1), 0, 2*Size) },
		"long content":   func() { Of(make([]byte, Size+1), 0, 2*Size) },
		"tree too large": func() { NewTree(MaxSize + 1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

func TestOfAllocatesNothing(t *testing.T) {
	content := make([]byte, Size, Size+Slack)
	for _, n := range []int64{0, 1, 4096, groupSize, groupSize + 5000, Size - 1, Size} {
		for _, buf := range [][]byte{content[:n], content[:n:n]} {
			if got := testing.AllocsPerRun(20, func() { Of(buf, 0, n) }); got != 0 {
				t.Errorf("%d bytes, capacity %d: got %v allocations, want 0", n, cap(buf), got)
			}
		}
	}
}

func BenchmarkOf(b *testing.B) {
	for _, n := range []int64{4 << 10, 16 << 10, 64 << 10, Size - 1, Size} {
		buf := make([]byte, n, n+Slack)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(n)
			b.ReportAllocs()
			for b.Loop() {
				Of(buf, 0, n)
			}
		})
	}
}
