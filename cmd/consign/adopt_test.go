package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/token"
)

// TestAdopt runs testdata/adopt: what stands in a store is entered in the namespace. Dana administers both providers, whose containers nobody owns.
func TestAdopt(t *testing.T) {
	t.Parallel()
	w := newEmptyWorld(t)
	var admins []string
	for _, p := range []token.Provider{"north", "south"} {
		w.must(w.net.AddProvider(p))
		admins = append(admins, string(token.NewIdentity(p, token.Subscriber, "dana")))
	}
	var err error
	w.broker, err = w.net.AddBroker(t.Context(), "hub", localnet.Setting{Key: "administrators", Value: admins})
	w.must(err)
	w.north, err = w.net.AddAgent("north", "one", []localnet.Export{{Container: "gov", Dir: w.src, Read: true}}, []*localnet.Broker{w.broker})
	w.must(err)
	w.south, err = w.net.AddAgent("south", "one", []localnet.Export{{Container: "dst", Dir: w.dst, Read: true, Create: true}}, []*localnet.Broker{w.broker})
	w.must(err)
	people := map[string]string{}
	for _, name := range []string{"alice", "bob", "dana"} {
		people[strings.ToUpper(name)], err = w.net.AddSubscriber(name, w.broker, "north", "south")
		w.must(err)
	}
	w.config = people["DANA"]
	w.file("one.txt", []byte("the first object\n"))
	w.file("tree/a.csv", []byte("a\n"))
	w.file("tree/deep/b.csv", []byte("b\n"))
	w.must(os.Symlink("a.csv", filepath.Join(w.src, "tree", "link")))
	start(w)
	cmds := liveCommands(w)
	delete(cmds, "daemon")
	cmds["restart"] = func(ts *testscript.TestScript, _ bool, _ []string) { // the broker, after a kill
		ts.Check(w.broker.Kill())
		ts.Check(w.broker.Start(w.t.Context()))
	}
	testscript.Run(t, testscript.Params{Dir: "testdata/adopt", Cmds: cmds, RequireExplicitExec: true, Setup: func(e *testscript.Env) error {
		setup(w, e)
		for name, file := range people {
			e.Setenv(name, file)
		}
		return nil
	}})
}
