package broker

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
)

func (w *world) provided(at string, k acl.Kind) map[space.Item]space.Provision {
	w.t.Helper()
	var out map[space.Item]space.Provision
	s := w.spot(at, k)
	if err := w.b.db.Read(w.t.Context(), func(tx *db.Tx) (err error) {
		out, err = w.b.provided(w.t.Context(), tx, s)
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return out
}

// TestProvidedHashIsThatOfTheReceipt: a hash is measured if the receipt of the agent that stored the object has it, and its leaf is the
// evidence; what a row says without one is not believed.
func TestProvidedHashIsThatOfTheReceipt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	w.wish("south:/dst", acl.Container, space.Hash, `"SHA256"`)
	w.allow("south:/dst", grant("south", everything))
	id := w.submit(w.order())
	src.list(object("a", 10), object("b", 20))
	serve, receive := batch(src, dst)
	m := dst.manifest(receive)
	got := untried(m)
	for i := range got {
		got[i] = good(i, m.Items[i], token.Destination)
		got[i].Hash = token.ValueDigest("SHA256:" + strings.Repeat(fmt.Sprint(i+1), 64))
	}
	dst.post(dst.receipt(receive, got))
	src.post(src.receipt(serve, nil))
	w.want(id, "complete", map[token.Result]int64{token.Stored: 2})
	p := w.provided("south:/dst/copy/b", acl.Object)[space.Hash]
	var leaf int64
	if err := w.b.db.Read(t.Context(), func(tx *db.Tx) error {
		return tx.Leaves(t.Context(), 0, func(i int64, l db.Leaf) error {
			if l.Kind == db.ReceiptLeaf && leaf == 0 {
				leaf = i // of the destination, which came first
			}
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	if p.Kind != space.Measured || p.Value != `"SHA256"` || !slices.Equal(p.By, []string{"spiffe://south/agent/s1"}) || p.At.IsZero() ||
		!strings.Contains(p.Evidence, fmt.Sprintf("leaf %d ", leaf)) {
		t.Errorf("got %+v, want it measured by the destination's agent, in leaf %d", p, leaf)
	}
	if err := w.b.db.Write(t.Context(), func(tx *db.Tx) error {
		n := w.spot("south:/dst/copy/b", acl.Object).Node
		n.Hash = strings.Repeat("f", 64)
		return tx.SaveNode(t.Context(), n)
	}); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"south:/dst/copy/b", "south:/dst/copy/c"} { // a row that somebody changed; no row
		if p := w.provided(at, acl.Object)[space.Hash]; p.Kind != space.Uncertain {
			t.Errorf("%s: got %+v, want it unknown", at, p)
		}
	}
}

// TestProvidedPlaceIsWhatAllSay: of each agent that exports the container, whether it is connected or not.
func TestProvidedPlaceIsWhatAllSay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.conf.Places = map[token.Location]space.Region{{Provider: "south"}: "FR", {Provider: "south", Container: "dst"}: "DE"}
	w.crash()
	one, two := w.agent(w.south, "s1", "dst"), w.agent(w.south, "s2", "dst")
	for _, a := range []*fake{one, two} {
		a.hello.Exports[0].Place = "DE"
		a.connect()
	}
	w.wish("south:/dst", acl.Container, space.GeographicPlacement, `["DE"]`)
	w.wish("south:/dst", acl.Container, space.Throughput, `"1000"`)
	w.wish("south:/dst", acl.Container, space.DataRedundancy, `"2"`)
	ps := w.provided("south:/dst/a/b", acl.Object)
	if p := ps[space.GeographicPlacement]; p.Kind != space.Attested || p.Value != `["DE"]` || len(p.By) != 3 {
		t.Errorf("the place: got %+v, want it attested by three", p)
	}
	if p := ps[space.Throughput]; p.Kind != space.Attested || p.Value != `"1000"` {
		t.Errorf("the throughput: got %+v, want it attested", p)
	}
	if p := ps[space.DataRedundancy]; p.Kind != space.Uncertain {
		t.Errorf("the copies: got %+v, want them unknown", p)
	}
	text, err := json.Marshal(provisions(ps))
	if err != nil || !strings.Contains(string(text), `"cdmi_data_redundancy":{"kind":"unknown","by":[],"evidence":"Nothing measures this`) ||
		!strings.Contains(string(text), `"cdmi_geographic_placement":{"value":["DE"],"kind":"attested","by":["south","spiffe://south/agent/s1","spiffe://south/agent/s2"],"at":"`) {
		t.Errorf("the native form: got %s, %v", text, err)
	}
	if got := string(providedItems(ps).Marshal()); got != `{"cdmi_data_redundancy_provided":"unknown","cdmi_geographic_placement_provided":["DE"],"cdmi_throughput_provided":"1000"}` {
		t.Errorf("the form of CDMI: got %s", got)
	}
	two.leave()
	two.hello.Exports[0].Place = "FR"
	two.connect()
	two.leave()
	if p := w.provided("south:/dst/a", acl.Object)[space.GeographicPlacement]; p.Kind != space.Uncertain || !strings.Contains(p.Evidence, "s2 says FR") {
		t.Errorf("when one of them is elsewhere: got %+v, want it unknown", p)
	}
}

// TestProvidedRetentionIsWhatAgentsKeep: a retention or hold is attested once every agent of the container has made it durable, and autodelete
// only where they also let the broker erase. One that has come to be since makes all of it unknown again.
func TestProvidedRetentionIsWhatAgentsKeep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agents := []*fake{w.agent(w.south, "s1", "dst"), w.agent(w.south, "s2", "dst")}
	for _, a := range agents {
		a.hello.Exports[0].Erase = true
		a.connect()
	}
	items := []space.Item{space.RetentionPeriod, space.HoldID, space.RetentionAutodelete}
	check := func(when string, want map[space.Item]space.Assurance, names string) {
		t.Helper()
		ps := w.provided("south:/dst/a/b", acl.Object)
		for _, item := range items {
			if p := ps[item]; p.Kind != want[item] || p.Kind == space.Uncertain && !strings.Contains(p.Evidence, names) {
				t.Errorf("%s: %s: got %+v, want %s and word of %s", when, item, p, want[item], names)
			}
		}
	}
	none := map[space.Item]space.Assurance{space.RetentionPeriod: space.Uncertain, space.HoldID: space.Uncertain, space.RetentionAutodelete: space.Uncertain}
	begins := space.Interval{Start: w.now.Add(1000 * time.Hour), End: w.now.Add(2000 * time.Hour)}
	w.wish("south:/dst", acl.Container, space.RetentionPeriod, `"`+begins.String()+`"`)
	w.wish("south:/dst", acl.Container, space.RetentionAutodelete, `"true"`)
	w.wish("south:/dst/a", acl.Container, space.HoldID, `["case 7"]`)
	check("nobody has said so", none, "spiffe://south/agent/s1")
	acknowledge := func(a *fake) {
		t.Helper()
		a.leave()
		if err := w.b.db.Read(t.Context(), func(tx *db.Tx) (err error) {
			a.hello.Kept, err = tx.NewestKeep(t.Context(), "south")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		a.connect()
	}
	acknowledge(agents[0])
	check("one of two has", none, "spiffe://south/agent/s2")
	acknowledge(agents[1])
	kept := map[space.Item]space.Assurance{space.RetentionPeriod: space.Attested, space.HoldID: space.Attested, space.RetentionAutodelete: space.Uncertain}
	check("both have, and one does not let the broker erase", kept, "local policy of the agent spiffe://south/agent/s1")
	for _, a := range agents {
		a.hello.Exports[0].Session = true
		acknowledge(a)
	}
	kept[space.RetentionAutodelete] = space.Attested
	check("both have, and let the broker erase", kept, "")
	w.wish("south:/dst/a", acl.Container, space.HoldID, `["case 7","case 8"]`)
	check("a hold came", none, "spiffe://south/agent/s1")
}
