package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/token/problem"
)

func parts(t *run) {
	size := int(t.Limits().PartSize)
	key := t.prefix + "large"
	h := t.header(0)
	up, err := t.Begin(t.Context(), key, h)
	if err != nil {
		t.Fatalf("Begin: %v", err)
	}
	up.Part = int64(size)
	data := content(5, 2*size+12345)
	t.part(up, 2, data[2*size:])
	if t.sub.Streams {
		t.part(up, 0, data[:size])
	} else {
		t.part(up, 0, content(6, size)) // written again below
	}
	t.part(up, 1, data[size:2*size])
	last := t.part(up, 0, data[:size])
	_, err = t.Head(t.Context(), key)
	t.want("Head before Complete", err, problem.Missing)
	again := bucket.Upload{Key: up.Key, ID: up.ID, Origin: up.Origin, Part: up.Part}
	got, err := t.Parts(t.Context(), again)
	if err != nil || len(got) != 3 {
		t.Fatalf("Parts: got %d and %v, want 3", len(got), err)
	}
	for i, want := range []int{size, size, 12345} {
		if got[i].Index != int64(i) || got[i].Size != int64(want) || got[i].Mark == "" {
			t.Errorf("Parts: got %+v, want %d of %d bytes with a mark", got[i], i, want)
		}
	}
	if got[0].Mark != last.Mark {
		t.Errorf("Parts: got the mark %q of a part that was written again, want the last, %q", got[0].Mark, last.Mark)
	}
	o, err := t.Complete(t.Context(), again, got, h)
	if err != nil {
		t.Fatalf("Complete: %v", err)
	}
	if now := t.head(key); !t.same(now.Version, o.Version) || now.Size != int64(len(data)) {
		t.Errorf("Complete told %+v; it is %+v", o, now)
	}
	if got, _ := t.read(key, o.Version, int64(size)-7, 20); !bytes.Equal(got, data[size-7:size+13]) {
		t.Error("what is around the boundary of two parts differs")
	}
	t.wantContent(key, data)
	if err := t.Abort(t.Context(), again); err != nil {
		t.Errorf("Abort of what was completed: %v", err)
	}
	t.wantContent(key, data)
}

func completeOnce(t *run) {
	key := t.prefix + "x"
	data := content(1, 1000)
	t.put(key, data)
	h := t.header(0)
	up, p := t.stage(key, h, content(2, 2000))
	if _, err := t.Complete(t.Context(), up, []bucket.Part{p}, h); !refused(err) {
		t.Errorf("Complete of what exists: got %v, want a refusal", err)
	}
	t.wantContent(key, data)
	if err := t.Abort(t.Context(), up); err != nil {
		t.Errorf("Abort: %v", err)
	}
	t.wantContent(key, data)

	key = t.prefix + "y"
	h = t.header(1)
	up, p = t.stage(key, h, data)
	if _, err := t.Complete(t.Context(), up, []bucket.Part{p}, h); err != nil {
		t.Fatalf("Complete: %v", err)
	}
	v := t.head(key).Version
	// A second time it may succeed, if the service knows that it is the same, or be refused.
	if _, err := t.Complete(t.Context(), up, []bucket.Part{p}, h); err != nil && !refused(err) {
		t.Errorf("Complete again: got %v, want a refusal or none", err)
	}
	t.wantContent(key, data)
	if !t.same(t.head(key).Version, v) {
		t.Error("Complete again has made another version")
	}
	_, err := t.Put(t.Context(), key, []byte("x"), bucket.Header{})
	t.want("Put over what was completed", err, problem.Taken)
	if err := t.Abort(t.Context(), up); err != nil {
		t.Errorf("Abort: %v", err)
	}
}

func completeRace(t *run) {
	for round := range 5 {
		key := fmt.Sprintf("%sx%d", t.prefix, round)
		ups, ps := make([]bucket.Upload, 4), make([]bucket.Part, 4)
		for i := range ups {
			ups[i], ps[i] = t.stage(key, t.header(4*round+i), content(i, 700+i))
		}
		w := t.oneWinner(key, race(4, func(i int) error {
			_, err := t.Complete(t.Context(), ups[i], ps[i:i+1], t.header(4*round+i))
			return err
		}))
		t.wantContent(key, content(w, 700+w))
		for _, up := range ups {
			if err := t.Abort(t.Context(), up); err != nil {
				t.Errorf("Abort: %v", err)
			}
		}
		t.wantContent(key, content(w, 700+w))
	}
}

// gone wants that nothing is left of an upload.
func (t *run) gone(up bucket.Upload) {
	t.Helper()
	ps, err := t.Parts(t.Context(), up)
	if err != nil && !errors.Is(err, bucket.ErrNoUpload) || len(ps) != 0 {
		t.Errorf("Parts after Abort: got %d and %v, want none", len(ps), err)
	}
}

func aborts(t *run) {
	h := t.header(0)
	key := t.prefix + "x"
	up, p := t.stage(key, h, content(1, 1000))
	if t.Limits().Expire > 0 {
		// Abort does not remove what is there; it must be harmless.
		for range 2 {
			t.want("Abort", t.Abort(t.Context(), up), "")
		}
		return
	}
	for range 3 {
		t.want("Abort", t.Abort(t.Context(), up), "")
		t.gone(up)
	}
	if _, err := t.Complete(t.Context(), up, []bucket.Part{p}, h); !errors.Is(err, bucket.ErrNoUpload) {
		t.Errorf("Complete after Abort: got %v, want %v", err, bucket.ErrNoUpload)
	}
	_, err := t.Head(t.Context(), key)
	t.want("Head after Abort", err, problem.Missing)
	if t.Limits().Named {
		return // an upload that is named comes back with its next part
	}
	_, err = t.PutPart(t.Context(), up, 0, bytes.NewReader(content(1, 1000)), 1000)
	if !errors.Is(err, bucket.ErrNoUpload) {
		t.Errorf("PutPart after Abort: got %v, want %v", err, bucket.ErrNoUpload)
	}
}

func uploads(t *run) {
	find := func(prefix string) []bucket.Upload {
		t.Helper()
		var all []bucket.Upload
		if err := t.Uploads(t.Context(), prefix, func(up bucket.Upload) bool { all = append(all, up); return true }); err != nil {
			t.Fatalf("Uploads: %v", err)
		}
		return all
	}
	mine, _ := t.stage(t.prefix+"in/x", t.header(0), content(1, 1000))
	other, _ := t.stage(t.prefix+"out/y", t.header(1), content(2, 1000))
	if l := t.Limits(); l.Named && (mine.ID == other.ID || mine.Origin != t.header(0).Origin) {
		t.Errorf("Begin: got %+v and %+v, want IDs of their own and the origin", mine, other)
	}
	all := find(t.prefix + "in/")
	if len(all) == 0 && len(find(t.prefix)) == 0 && !t.Limits().Named {
		t.Log("this service does not list uploads")
	} else if len(all) != 1 || all[0].Key != mine.Key {
		t.Fatalf("Uploads: got %+v, want the one to %q", all, mine.Key)
	} else {
		if t.Limits().Named && all[0].Origin != mine.Origin {
			t.Errorf("Uploads: got the origin %q, want %q", all[0].Origin, mine.Origin)
		}
		mine = all[0]
	}
	for _, up := range []bucket.Upload{mine, other} {
		t.want("Abort", t.Abort(t.Context(), up), "")
	}
	if t.Limits().Expire == 0 {
		t.gone(mine)
		if all := find(t.prefix); len(all) != 0 {
			t.Errorf("Uploads after Abort: got %+v, want none", all)
		}
	}
}

// failing gives n bytes and then an error.
type failing struct {
	n   int
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	if f.n == 0 {
		return 0, f.err
	}
	n := min(len(p), f.n)
	f.n -= n
	return n, nil
}

func brokenPart(t *run) {
	up, kept := t.stage(t.prefix+"x", t.header(0), content(1, 100000))
	boom := errors.New("boom")
	for _, r := range []*failing{{50000, boom}, {50000, io.EOF}, {0, boom}} {
		if _, err := t.PutPart(t.Context(), up, 1, r, 100000); err == nil {
			t.Errorf("PutPart of what ends with %v after %d bytes: got nil", r.err, r.n)
		}
	}
	ps, err := t.Parts(t.Context(), up)
	if err != nil || len(ps) != 1 || ps[0] != kept {
		t.Errorf("Parts: got %+v and %v, want %+v alone", ps, err, kept)
	}
	t.want("Abort", t.Abort(t.Context(), up), "")
}

func cancelled(t *run) {
	up, p := t.stage(t.prefix+"x", t.header(0), content(1, 1000))
	v := t.put(t.prefix+"y", content(2, 1000)).Version
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for what, call := range map[string]func() error{
		"Head": func() error { _, err := t.Head(ctx, t.prefix+"y"); return err },
		"Get":  func() error { _, _, err := t.Get(ctx, t.prefix+"y", v, 0, 10); return err },
		"Put":  func() error { _, err := t.Put(ctx, t.prefix+"z", []byte("z"), bucket.Header{}); return err },
		"List": func() error { return t.List(ctx, t.prefix, "", func(bucket.Object) bool { return true }) },
		"PutPart": func() error {
			_, err := t.PutPart(ctx, up, 1, bytes.NewReader(content(3, 10)), 10)
			return err
		},
		"Parts":    func() error { _, err := t.Parts(ctx, up); return err },
		"Complete": func() error { _, err := t.Complete(ctx, up, []bucket.Part{p}, t.header(0)); return err },
		"Delete":   func() error { return t.Delete(ctx, t.prefix+"y", v) },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want %v", what, err, context.Canceled)
		}
	}
	t.wantContent(t.prefix+"y", content(2, 1000))
	// A part on its way ends with its context, though its reader has more to come.
	ctx, cancel = context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error)
	go func() {
		_, err := t.PutPart(ctx, up, 1, r, 100000)
		done <- err
	}()
	if _, err := w.Write(content(1, 50000)); err != nil {
		t.Fatalf("writing to a part: %v", err)
	}
	cancel()
	_ = w.CloseWithError(context.Canceled) // never an error
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("PutPart: got %v, want %v", err, context.Canceled)
	}
	t.want("Abort", t.Abort(t.Context(), up), "")
}

func refusals(t *run) {
	ver := t.put(t.prefix+"y", content(1, 10)).Version
	ask := func(name string, b bucket.Backend) {
		if b == nil {
			return
		}
		t.Run(name, func(t *testing.T) {
			h := bucket.Header{}
			for what, call := range map[string]func() error{
				"Get":  func() error { _, _, err := b.Get(t.Context(), "x", ver, 0, 10); return err },
				"List": func() error { return b.List(t.Context(), "x", "", func(bucket.Object) bool { return true }) },
				"Put":  func() error { _, err := b.Put(t.Context(), "x", []byte("x"), h); return err },
			} {
				if code := problem.Of(call()); code != problem.Unreadable && code != problem.Unwritable {
					t.Errorf("%s: got %q, want %q or %q", what, code, problem.Unreadable, problem.Unwritable)
				}
			}
		})
	}
	ask("no bucket", t.sub.NoBucket)
	ask("bad credentials", t.sub.BadCredentials)
}
