package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"testing"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token/problem"
)

const objectSize = 2*chunk.Size + 100

// chunkFrame is chunk index of an object of objectSize bytes, as a source sends it.
func chunkFrame(index int64) []byte {
	_, n := chunk.Span(objectSize, index)
	b := make([]byte, ChunkHeadSize+chunk.Size+chunk.Slack)
	data := b[ChunkHeadSize:][:n]
	for i := range data {
		data[i] = byte(index + 1)
	}
	return bytes.Clone(PutChunk(b, index, int(n), chunk.Of(data, index, objectSize)))
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestChunksArriveAsSent(t *testing.T) {
	t.Parallel()
	want := WantChunks{Batch: batch(), First: 1, N: 2}
	pinned := Pinned{Attrs: fullAttrs(), Native: "etag:x"}
	stream := join(mustAppend(t, nil, pinned), chunkFrame(1), chunkFrame(2), mustAppend(t, nil, Done{}))
	r := NewChunkReader(bytes.NewReader(stream), want, objectSize)
	if got, err := r.Pinned(); err != nil || !reflect.DeepEqual(got, pinned) {
		t.Errorf("got %+v, %v, want %+v", got, err, pinned)
	}
	buf := make([]byte, chunk.Size, chunk.Size+chunk.Slack)
	for index := int64(1); index < 3; index++ {
		got, err := r.Next(buf)
		if err != nil {
			t.Fatal(err)
		}
		if got.Index != index || got.Value != chunk.Of(got.Data, index, objectSize) || got.Data[0] != byte(index+1) || &got.Data[0] != &buf[0] {
			t.Errorf("chunk %d did not arrive as it was sent", index)
		}
	}
	if _, err := r.Next(buf); err != io.EOF {
		t.Errorf("got %v, want io.EOF", err)
	}
}

func TestMisbehavingSourceOfChunks(t *testing.T) {
	t.Parallel()
	done, no := mustAppend(t, nil, Done{}), mustAppend(t, nil, Refuse(problem.New(problem.Changed, "it changed")))
	pinned := mustAppend(t, nil, Pinned{})
	head := func(index int64, n int) []byte { return mustAppend(t, nil, ChunkHead{Index: index, Length: n}) }
	for name, tc := range map[string]struct {
		stream []byte
		want   problem.Code
		chunks int
	}{
		"nothing":                 {nil, problem.PeerMisbehaved, 0},
		"done at once":            {join(pinned, done), problem.PeerMisbehaved, 0},
		"done early":              {join(pinned, chunkFrame(1), done), problem.PeerMisbehaved, 1},
		"another chunk":           {join(pinned, chunkFrame(0)), problem.PeerMisbehaved, 0},
		"the same again":          {join(pinned, chunkFrame(1), chunkFrame(1)), problem.PeerMisbehaved, 1},
		"one more than asked":     {join(pinned, chunkFrame(1), chunkFrame(2), chunkFrame(2)), problem.PeerMisbehaved, 2},
		"short content":           {join(pinned, head(1, 5), make([]byte, 40)), problem.PeerMisbehaved, 0},
		"tail as long as others":  {join(pinned, chunkFrame(1), head(2, chunk.Size)), problem.PeerMisbehaved, 1},
		"cut in the content":      {join(pinned, chunkFrame(1)[:5000]), problem.PeerMisbehaved, 0},
		"cut in the value":        {join(pinned, chunkFrame(1)[:len(chunkFrame(1))-1]), problem.PeerMisbehaved, 0},
		"bytes behind the end":    {join(pinned, chunkFrame(1), chunkFrame(2), done, done), problem.PeerMisbehaved, 2},
		"a request":               {join(pinned, mustAppend(t, nil, Seal{Batch: batch()})), problem.PeerMisbehaved, 0},
		"an item":                 {join(pinned, mustAppend(t, nil, Item{})), problem.PeerMisbehaved, 0},
		"refused at once":         {no, problem.Changed, 0},
		"refused in the middle":   {join(pinned, chunkFrame(1), no), problem.Changed, 1},
		"not described":           {chunkFrame(1), problem.PeerMisbehaved, 0},
		"described twice":         {join(pinned, pinned), problem.PeerMisbehaved, 0},
		"described in the middle": {join(pinned, chunkFrame(1), pinned), problem.PeerMisbehaved, 1},
		"nothing but described":   {pinned, problem.PeerMisbehaved, 0},
		"bytes behind a refusal":  {join(no, no), problem.PeerMisbehaved, 0},
	} {
		r := NewChunkReader(bytes.NewReader(tc.stream), WantChunks{Batch: batch(), First: 1, N: 2}, objectSize)
		buf := make([]byte, chunk.Size)
		n, err := 0, error(nil)
		for ; err == nil; n++ {
			_, err = r.Next(buf)
		}
		if problem.Of(err) != tc.want || n-1 != tc.chunks {
			t.Errorf("%s: got %d chunks, then %v, want %d, then %s", name, n-1, err, tc.chunks, tc.want)
		}
	}
}

func TestBufferThatIsTooSmallIsNotOverrun(t *testing.T) {
	t.Parallel()
	r := NewChunkReader(bytes.NewReader(join(mustAppend(t, nil, Pinned{}), chunkFrame(1))), WantChunks{Batch: batch(), First: 1, N: 1}, objectSize)
	if _, err := r.Next(make([]byte, chunk.Size-1)); !errors.Is(err, errBuffer) {
		t.Errorf("got %v, want errBuffer", err)
	}
	run := NewRunReader(bytes.NewReader(itemFrame(t, 0, make([]byte, 100))), WantRun{Items: []int{0}})
	if _, err := run.Next(make([]byte, 99)); !errors.Is(err, errBuffer) {
		t.Errorf("got %v, want errBuffer", err)
	}
}

func TestPutChunkNeedsItsRoom(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, ChunkHeadSize, ChunkHeadSize + 10 + ValueSize - 1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("room of %d bytes: no panic", size)
				}
			}()
			PutChunk(make([]byte, size), 0, 10, chunk.Value{})
		}()
	}
}

func itemFrame(t testing.TB, item int, content []byte) []byte {
	b := mustAppend(t, nil, Item{Item: item, Size: len(content), Attrs: store.Attrs{Mode: 0o600, HasMode: true}, Native: "etag:x"})
	root := chunk.Of(content, 0, int64(len(content)))
	return append(append(b, content...), root[:]...)
}

func TestRunArrivesAsSent(t *testing.T) {
	t.Parallel()
	items := []int{0, 3, 4, 9}
	contents := map[int][]byte{0: {}, 3: []byte("three"), 9: bytes.Repeat([]byte("9"), MaxSmall)}
	stream := join(itemFrame(t, 0, contents[0]), itemFrame(t, 3, contents[3]),
		mustAppend(t, nil, RefuseItem(4, problem.New(problem.Unreadable, "no right to read"))),
		itemFrame(t, 9, contents[9]), mustAppend(t, nil, Done{}))
	r := NewRunReader(bytes.NewReader(stream), WantRun{Batch: batch(), Items: items})
	buf := make([]byte, MaxSmall, MaxSmall+chunk.Slack)
	for _, item := range items {
		got, err := r.Next(buf)
		if err != nil || got.Index != item {
			t.Fatalf("item %d: got %d, %v", item, got.Index, err)
		}
		if content, ok := contents[item]; !ok {
			if e := problem.As(got.Err); e.Code != problem.Unreadable || e.Sentence() != "no right to read" {
				t.Errorf("item %d: got %v", item, got.Err)
			}
		} else if !bytes.Equal(got.Data, content) || got.Root != chunk.Of(content, 0, int64(len(content))) || got.Attrs.Mode != 0o600 || got.Native != "etag:x" || got.Err != nil {
			t.Errorf("item %d did not arrive as it was sent", item)
		}
	}
	if _, err := r.Next(buf); err != io.EOF {
		t.Errorf("got %v, want io.EOF", err)
	}
}

func TestMisbehavingSourceOfARun(t *testing.T) {
	t.Parallel()
	done, no := mustAppend(t, nil, Done{}), mustAppend(t, nil, Refuse(problem.New(problem.CapExpired, "it ended")))
	one, two := itemFrame(t, 1, []byte("one")), itemFrame(t, 2, []byte("two"))
	for name, tc := range map[string]struct {
		stream []byte
		want   problem.Code
		items  int
	}{
		"nothing":                {nil, problem.PeerMisbehaved, 0},
		"done early":             {join(one, done), problem.PeerMisbehaved, 1},
		"out of order":           {two, problem.PeerMisbehaved, 0},
		"not asked for":          {itemFrame(t, 7, nil), problem.PeerMisbehaved, 0},
		"twice":                  {join(one, one), problem.PeerMisbehaved, 1},
		"one more":               {join(one, two, two), problem.PeerMisbehaved, 2},
		"refusal of another":     {mustAppend(t, nil, RefuseItem(5, io.EOF)), problem.PeerMisbehaved, 0},
		"cut in the content":     {one[:len(one)-33], problem.PeerMisbehaved, 0},
		"cut in the root":        {one[:len(one)-1], problem.PeerMisbehaved, 0},
		"bytes behind the end":   {join(one, two, done, []byte{0}), problem.PeerMisbehaved, 2},
		"a chunk":                {chunkFrame(1), problem.PeerMisbehaved, 0},
		"refused in the middle":  {join(one, no), problem.CapExpired, 1},
		"bytes behind a refusal": {join(one, no, done), problem.PeerMisbehaved, 1},
	} {
		want := WantRun{Batch: batch(), Items: []int{1, 2}}
		r := NewRunReader(bytes.NewReader(tc.stream), want)
		buf := make([]byte, MaxSmall)
		n, err := 0, error(nil)
		for ; err == nil; n++ {
			_, err = r.Next(buf)
		}
		if problem.Of(err) != tc.want || n-1 != tc.items {
			t.Errorf("%s: got %d items, then %v, want %d, then %s", name, n-1, err, tc.items, tc.want)
		}
		if fmt.Sprint(want.Items) != "[1 2]" {
			t.Errorf("%s: the caller's want was changed to %v", name, want.Items)
		}
	}
}
