package agent

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	heldData = `{"cdmi_hold_id":["case 7"]}`
	freeData = `{"cdmi_sanitization_method":"overwrite"}`
)

// keepOn opens what is kept in the directory root.
func keepOn(t *testing.T, root disk.FS, boot ...string) *kept {
	t.Helper()
	set, err := journal.OpenSet(root, "kept", append(boot, "boot")[0], time.Now())
	if err != nil {
		t.Fatal(err)
	}
	k, err := openKept(set)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// free is what k says of erasing a place.
func (k *kept) free(t *testing.T, name token.ObjectName, kind acl.Kind) problem.Code {
	t.Helper()
	in, err := k.inForce("c", name, kind)
	if err != nil {
		t.Fatal(err)
	}
	return problem.Of(in.CheckFree(time.Now()))
}

// TestHoldsAreInherited: a hold of a container holds everything below it, and one of an object that object alone.
func TestHoldsAreInherited(t *testing.T) {
	t.Parallel()
	k := keepOn(t, disk.NewMem(time.Now).Root())
	until := time.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05.000000Z")
	over := time.Now().Add(-time.Hour).UTC().Format("2006-01-02T15:04:05.000000Z")
	begun := "2020-01-01T00:00:00.000000Z/"
	page := api.KeptPage{Seq: 9, Last: true, Records: []api.Kept{
		{Seq: 1, Container: "c", Name: "held", Data: heldData},
		{Seq: 2, Container: "c", Name: "both", Object: true, Data: heldData},
		{Seq: 3, Container: "c", Name: "kept", Data: `{"cdmi_retention_period":"` + begun + until + `"}`},
		{Seq: 4, Container: "c", Name: "kept/less", Data: `{"cdmi_retention_period":"` + begun + over + `"}`},
		{Seq: 5, Container: "other", Data: heldData},
	}}
	if err := k.take(page); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name token.ObjectName
		kind acl.Kind
		want problem.Code
	}{
		{"held", acl.Container, problem.OnHold}, {"held/a/b", acl.Object, problem.OnHold}, {"held/a", acl.Container, problem.OnHold},
		{"held", acl.Object, ""}, {"heldx", acl.Object, ""}, {"hel", acl.Object, ""},
		{"both", acl.Object, problem.OnHold}, {"both", acl.Container, ""}, {"both/x", acl.Object, ""},
		{"kept/a", acl.Object, problem.UnderRetention}, {"kept/less/a", acl.Object, ""}, {"a", acl.Object, ""},
	} {
		if got := k.free(t, tt.name, tt.kind); got != tt.want {
			t.Errorf("%s %q: got %q, want %q", tt.kind, tt.name, got, tt.want)
		}
	}
	if err := k.take(api.KeptPage{Seq: 10, Last: true, Records: []api.Kept{{Seq: 10, Container: "c", Data: heldData}}}); err != nil {
		t.Fatal(err)
	}
	if got := k.free(t, "heldx", acl.Object); got != problem.OnHold {
		t.Errorf("with a hold of the whole container: got %q, want %q", got, problem.OnHold)
	}
}

// TestHoldsSurviveAPowerCut: what was taken is there after a crash at any operation of the disk, and a hold that was acknowledged before is never lost.
func TestHoldsSurviveAPowerCut(t *testing.T) {
	t.Parallel()
	script := func(k *kept) (acked int64) {
		for _, p := range []api.KeptPage{
			{Seq: 1, Records: []api.Kept{{Seq: 1, Container: "c", Name: "a", Object: true, Data: heldData}}},
			{Seq: 2, Last: true, Records: []api.Kept{{Seq: 2, Container: "c", Name: "b", Object: true, Data: heldData}}},
			{Seq: 3, Anew: true, Records: []api.Kept{{Seq: 3, Container: "c", Name: "a", Object: true, Data: heldData}}},
			{Seq: 4, Last: true, Records: []api.Kept{{Seq: 4, Container: "c", Name: "d", Object: true, Data: heldData}}},
		} {
			if k.take(p) != nil {
				return acked
			}
			acked = p.Seq
		}
		return acked
	}
	for n := 0; ; n++ {
		m := disk.NewMem(time.Now)
		k := keepOn(t, m.Root())
		m.ResetCalls()
		m.SetHook(func(c disk.Call) disk.Verdict {
			if c.N >= n {
				return disk.Verdict{Err: errors.New("the power is off")}
			}
			return disk.Verdict{}
		})
		acked := script(k)
		calls := m.Calls()
		m.SetHook(nil)
		m.Crash(rand.New(rand.NewPCG(1, uint64(n))))
		k = keepOn(t, m.Root(), "another boot")
		if acked >= 1 && k.free(t, "a", acl.Object) != problem.OnHold {
			t.Fatalf("cut at call %d: the hold of a, acknowledged, is lost", n)
		}
		if acked == 2 && k.free(t, "b", acl.Object) != problem.OnHold {
			t.Fatalf("cut at call %d: the hold of b, acknowledged and not yet over, is lost", n)
		}
		if acked == 4 && (k.free(t, "b", acl.Object) != "" || k.free(t, "d", acl.Object) != problem.OnHold || k.reached() != 4) {
			t.Fatalf("cut at call %d: the log that was told anew is not what is kept", n)
		}
		if calls < n {
			return
		}
	}
}

// TestPageOfHoldsThatCannotBeRead: what a broker of ours would not send is taken in no part, and nothing may be erased from then on.
func TestPageOfHoldsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	good := api.Kept{Seq: 3, Container: "c", Name: "a", Object: true, Data: freeData}
	for name, change := range map[string]func(*api.KeptPage){
		"no JSON":            func(p *api.KeptPage) { p.Records[1].Data = "{" },
		"unknown item":       func(p *api.KeptPage) { p.Records[1].Data = `{"cdmi_hold":"x"}` },
		"no form of CDMI":    func(p *api.KeptPage) { p.Records[1].Data = `{"cdmi_retention_period":"for ever"}` },
		"a name that is odd": func(p *api.KeptPage) { p.Records[1].Name = "a/../b" },
		"no container":       func(p *api.KeptPage) { p.Records[1].Container = "" },
		"no object":          func(p *api.KeptPage) { p.Records[1].Name = "" },
		"huge":               func(p *api.KeptPage) { p.Records[1].Data = heldData + strings.Repeat(" ", api.MaxKeptData) },
		"too many":           func(p *api.KeptPage) { p.Records = append(p.Records, make([]api.Kept, api.MaxKept)...) },
		"one that goes back": func(p *api.KeptPage) { p.Seq = 1 },
	} {
		k := keepOn(t, disk.NewMem(time.Now).Root())
		if err := k.take(api.KeptPage{Seq: 2, Last: true, Records: []api.Kept{{Seq: 2, Container: "c", Name: "a", Object: true, Data: heldData}}}); err != nil {
			t.Fatal(err)
		}
		p := api.KeptPage{Seq: 4, Last: true, Records: []api.Kept{good, {Seq: 4, Container: "c", Name: "b", Object: true, Data: heldData}}}
		change(&p)
		if err := k.take(p); err == nil {
			t.Errorf("%s: it is taken", name)
		}
		if got := k.free(t, "a", acl.Object); got != problem.OnHold || k.reached() != 2 {
			t.Errorf("%s: got %q for what was held and %d, want nothing of the page taken", name, got, k.reached())
		}
		if err := k.whole(); problem.Of(err) != problem.Overloaded {
			t.Errorf("%s: got %v for an erasure, want %q", name, err, problem.Overloaded)
		}
		if err := k.take(api.KeptPage{Seq: 4, Last: true, Records: []api.Kept{{Seq: 4, Container: "c", Name: "a", Object: true}}}); err != nil || k.whole() != nil {
			t.Errorf("%s: a good page later: got %v and %v, want it taken", name, err, k.whole())
		}
		if got := k.free(t, "a", acl.Object); got != "" {
			t.Errorf("%s: got %q for what the broker has released, want nothing", name, got)
		}
	}
}

// TestHoldsHaveABound: a broker that has more to say than is kept is told that it cannot be, and what was kept stays.
func TestHoldsHaveABound(t *testing.T) {
	t.Parallel()
	root, err := disk.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	k := keepOn(t, root)
	if err := k.take(api.KeptPage{Seq: 1, Last: true, Records: []api.Kept{{Seq: 1, Container: "c", Name: "a", Object: true, Data: heldData}}}); err != nil {
		t.Fatal(err)
	}
	fat, many := heldData+strings.Repeat(" ", journal.MaxSetValue-len(heldData)), map[string]string{}
	for i := range journal.MaxSetSize/journal.MaxSetValue - 2 {
		many[keptKey(acl.Object, "c", token.ObjectName(fmt.Sprint("fat", i)))] = fat
	}
	if err := k.set.PutAll(maps.All(many), forEver); err != nil {
		t.Fatal(err)
	}
	p := api.KeptPage{Seq: 9, Last: true}
	for i := range int64(8) {
		p.Records = append(p.Records, api.Kept{Seq: 2 + i, Container: "c", Name: token.ObjectName(fmt.Sprint("o", i)), Object: true, Data: fat[:api.MaxKeptData]})
	}
	if err := k.take(p); problem.Of(err) != problem.Overloaded {
		t.Errorf("got %v, want %q", err, problem.Overloaded)
	}
	if k.free(t, "a", acl.Object) != problem.OnHold || k.whole() == nil || k.reached() != 1 {
		t.Error("what was kept before is lost, or something may be erased")
	}
	if err := k.set.Close(); err != nil {
		t.Error(err)
	}
}
