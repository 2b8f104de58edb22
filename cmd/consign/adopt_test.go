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

// TestAdopt runs testdata/adopt: what stands in a store is entered in the namespace. Dana administers north, whose agent exports a container that nobody owns.
func TestAdopt(t *testing.T) {
	t.Parallel()
	w := newEmptyWorld(t)
	w.must(w.net.AddProvider("north"))
	dana := token.NewIdentity("north", token.Subscriber, "dana")
	var err error
	w.broker, err = w.net.AddBroker(t.Context(), "hub", localnet.Setting{Key: "administrators", Value: []string{string(dana)}})
	w.must(err)
	w.north, err = w.net.AddAgent("north", "one", []localnet.Export{{Container: "gov", Dir: w.src, Read: true}}, []*localnet.Broker{w.broker})
	w.must(err)
	people := map[string]string{}
	for _, name := range []string{"alice", "bob", "dana"} {
		people[strings.ToUpper(name)], err = w.net.AddSubscriber(name, w.broker, "north")
		w.must(err)
	}
	w.config = people["DANA"]
	w.file("one.txt", []byte("the first object\n"))
	w.file("tree/a.csv", []byte("a\n"))
	w.file("tree/deep/b.csv", []byte("b\n"))
	w.must(os.Symlink("a.csv", filepath.Join(w.src, "tree", "link")))
	for _, p := range []*localnet.Proc{w.broker.Proc, w.north.Proc} {
		w.must(p.Start(t.Context()))
	}
	w.await("the agent is connected", func() bool { return strings.Contains(w.consign(0, "provider", "list").Stdout, "(connected)") })
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
