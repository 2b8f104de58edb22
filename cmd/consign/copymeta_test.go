package main

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestCopyWithMetadata runs testdata/copymeta: what the destination wishes of an object is had by its copy, and what is known of it goes along, with a
// broker and agents that are real.
func TestCopyWithMetadata(t *testing.T) {
	t.Parallel()
	w, people := newGoverned(t)
	contents := map[string][]byte{"one.txt": []byte("the first object\n"), "big.bin": bytes.Repeat([]byte("0123456789abcdef"), 3<<16+1)}
	for name, data := range contents {
		w.file(name, data)
	}
	start(w)
	testscript.Run(t, testscript.Params{Dir: "testdata/copymeta", Cmds: liveCommands(w), RequireExplicitExec: true, Setup: func(e *testscript.Env) error {
		setup(w, e)
		for name, file := range people {
			e.Setenv(name, file)
		}
		for name, key := range map[string]string{"one.txt": "ONE", "big.bin": "BIG"} {
			sum := sha512.Sum384(contents[name])
			e.Setenv(key, hex.EncodeToString(sum[:]))
		}
		return nil
	}})
}
