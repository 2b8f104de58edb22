package broker

import (
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/token"
)

// TestCompareIsNoOracle: who may bring objects into a container and not read there does not learn, by copying guesses with
// "verify", what is in it. Whether the name is there makes no difference.
func TestCompareIsNoOracle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, _ := w.pair()
	w.allow("south:/dst", grant("south", everything&^(acl.ReadObject|acl.ReadACL)))
	id := w.submit(w.order(func(o *token.Order) { o.IfExists = token.Compare }))
	src.list(object("guess", 10), object("another", 10))
	w.want(id, "failed", map[token.Result]int64{token.Denied: 2})
	page, err := w.b.Items(t.Context(), w.me(), id, "", "")
	if err != nil || len(page.Items) != 2 {
		t.Fatalf("got %+v, %v", page, err)
	}
	for _, it := range page.Items {
		if !strings.Contains(it.Detail, "READ_OBJECT") || !strings.Contains(it.Detail, "south:/dst/copy/") {
			t.Errorf("%s: got %q, want the missing right to read at the destination", it.Src, it.Detail)
		}
	}
}
