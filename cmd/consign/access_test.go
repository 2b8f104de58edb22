package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/token"
)

// newGoverned is a world whose broker has an administrator at each provider, dana. North exports the container gov.
func newGoverned(t *testing.T) (w *world, people map[string]string) {
	t.Helper()
	w = newEmptyWorld(t)
	for _, p := range []token.Provider{"north", "south"} {
		w.must(w.net.AddProvider(p))
	}
	var err error
	w.broker, err = w.net.AddBroker(t.Context(), "hub", localnet.Setting{Key: "administrators", Value: []string{"spiffe://north/subscriber/dana", "spiffe://south/subscriber/dana"}})
	w.must(err)
	brokers := []*localnet.Broker{w.broker}
	w.north, err = w.net.AddAgent("north", "one", []localnet.Export{{Container: "gov", Dir: w.src, Read: true}}, brokers)
	w.must(err)
	w.south, err = w.net.AddAgent("south", "one", []localnet.Export{{Container: "dst", Dir: w.dst, Read: true, Create: true}}, brokers)
	w.must(err)
	people = map[string]string{}
	for name, who := range map[string]string{"ALICE": "alice", "BOB": "bob", "CAROL": "carol", "DANA": "dana"} {
		people[name], err = w.net.AddSubscriber(who, w.broker, "north", "south")
		w.must(err)
	}
	w.config = people["ALICE"]
	t.Cleanup(func() {
		if t.Failed() {
			for _, p := range w.procs() {
				t.Logf("the end of the log of %s:\n%s", p.Name, p.Tail(25))
			}
		}
	})
	return w, people
}

// TestAccess runs testdata/access: lists, metadata, groups and searches with a broker and agents that are real. The scripts run one after
// another in one network, because they change what they find.
func TestAccess(t *testing.T) {
	t.Parallel()
	w, people := newGoverned(t)
	w.file("one.txt", []byte("the first object\n"))
	w.file("tree/a.csv", []byte("a\n"))
	w.file("tree/deep/b.csv", []byte("b\n"))
	start(w)
	testscript.Run(t, testscript.Params{Files: []string{"testdata/access/acl.txtar"}, Cmds: liveCommands(w), RequireExplicitExec: true, Setup: func(e *testscript.Env) error {
		setup(w, e)
		for name, file := range people {
			e.Setenv(name, file)
		}
		return nil
	}})
}
