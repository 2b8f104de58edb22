package azure_test

import (
	"strings"
	"testing"

	"github.com/consign-transfer/consign/agent/store/bucket"
)

// TestOneRequestACall counts what leaves the backend where nothing fails.
func TestOneRequestACall(t *testing.T) {
	t.Parallel()
	a := azurite(t)
	f := behind(t, a)
	b := open(t, a, f.URL())
	var made bucket.Object
	var up bucket.Upload
	var part bucket.Part
	for _, tc := range []struct {
		want string
		call func() error
	}{
		{"PutBlob", func() (err error) { made, err = b.Put(t.Context(), "k", []byte("x"), bucket.Header{}); return err }},
		{"GetBlobProperties", func() error { _, err := b.Head(t.Context(), "k"); return err }},
		{"GetBlob", func() error {
			r, _, err := b.Get(t.Context(), "k", made.Version, 0, 1)
			if err == nil {
				r.Close()
			}
			return err
		}},
		{"ListBlobs", func() error { return b.List(t.Context(), "", "", func(bucket.Object) bool { return true }) }},
		{"", func() (err error) {
			up, err = b.Begin(t.Context(), "l", bucket.Header{Origin: "b/1"})
			return err
		}},
		{"PutBlock", func() (err error) {
			part, err = b.PutPart(t.Context(), up, 0, strings.NewReader("x"), 1)
			return err
		}},
		{"GetBlockList", func() error { _, err := b.Parts(t.Context(), up); return err }},
		{"ListBlobs GetBlockList", func() error { return b.Uploads(t.Context(), "", func(bucket.Upload) bool { return true }) }},
		{"PutBlockList", func() error { _, err := b.Complete(t.Context(), up, []bucket.Part{part}, bucket.Header{}); return err }},
		{"", func() error { return b.Abort(t.Context(), up) }},
		{"DeleteBlob", func() error { return b.Delete(t.Context(), "k", made.Version) }},
	} {
		f.Plan(nil)
		err := tc.call()
		var got []string
		for _, c := range f.Requests() {
			got = append(got, c.Kind)
		}
		if all := strings.Join(got, " "); err != nil || all != tc.want {
			t.Errorf("got %q (%v), want %q", all, err, tc.want)
		}
	}
}

// TestBlocksOfAnotherProgram: blocks with shorter identifiers make ours impossible, which is told and not mistaken for something passing.
func TestBlocksOfAnotherProgram(t *testing.T) {
	t.Parallel()
	a := azurite(t)
	b := open(t, a, a.Endpoint)
	if _, err := a.Do(t.Context(), "PUT", "/con/k?comp=block&blockid=AAAA", []byte("theirs")); err != nil {
		t.Fatal(err)
	}
	up, err := b.Begin(t.Context(), "k", bucket.Header{Origin: "b/1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.PutPart(t.Context(), up, 0, strings.NewReader("x"), 1); kind(err) != "unwritable" {
		t.Errorf("got %v, want that it cannot be written", err)
	}
	if parts, err := b.Parts(t.Context(), up); err != nil || len(parts) != 0 {
		t.Errorf("got the parts %v (%v), want none of ours", parts, err)
	}
	if err := b.Uploads(t.Context(), "", func(u bucket.Upload) bool { t.Errorf("got the upload %+v, which is not ours", u); return true }); err != nil {
		t.Error(err)
	}
}
