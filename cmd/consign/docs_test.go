package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// docs are the documents that show commands and configurations.
var docs = []string{"../../README.md", "../../docs/OPERATIONS.md"}

// blocks returns the fenced blocks of a document that have the given language.
func blocks(t *testing.T, file, language string) []string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```").FindAllSubmatch(data, -1) {
		out = append(out, string(m[1]))
	}
	return out
}

// TestConfigurationsInDocumentsLoad loads every configuration that a document shows.
func TestConfigurationsInDocumentsLoad(t *testing.T) {
	t.Parallel()
	found := map[string]bool{}
	for _, file := range docs {
		for i, text := range blocks(t, file, "yaml") {
			var cfg any
			var kind string
			switch {
			case strings.Contains(text, "accounts:"):
				cfg, kind = &cliConfig{}, "subscriber"
			case strings.Contains(text, "providers:"):
				cfg, kind = &brokerConfig{}, "broker"
			default:
				cfg, kind = &agentConfig{}, "agent"
			}
			found[kind] = true
			if _, err := newApp().load(cfg, loading{files: []string{write(t, fmt.Sprintf("%d.yaml", i), text)}}); err != nil {
				t.Errorf("%s: configuration %d (%s): %v", file, i+1, kind, err)
			}
		}
	}
	if len(found) != 3 {
		t.Errorf("configurations in documents: got %v, want one of each kind", found)
	}
}

// commandLine finds what begins with consign, in a shell block or in the code of a sentence.
var commandLine = regexp.MustCompile("(?m)(?:^|&& |`|'|\\$ )(consign [a-z][^`'\n]*)")

// TestCommandsInDocumentsExist parses every command line that a document or a help text shows.
func TestCommandsInDocumentsExist(t *testing.T) {
	t.Parallel()
	texts := map[string]string{"cp --help": cpHelp, "ca --help": caHelp, "agent gc --help": newApp().agentGCCommand().Long, "account --help": accountHelp, "order --help": orderHelp, "signer --help": signerHelp,
		"acl --help": aclHelp, "meta --help": metaHelp, "group --help": groupHelp, "find --help": newApp().findCommand().Long, "acl set --help": newApp().aclSetCommand().Long}
	for _, kind := range []string{kindDir, kindS3, kindAzure, kindGCS} {
		texts["the sample of "+kind] = sampleOf(t, kind)
	}
	for _, file := range docs {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[file] = string(data)
	}
	n := 0
	for where, text := range texts {
		for _, m := range commandLine.FindAllStringSubmatch(text, -1) {
			line, _, _ := strings.Cut(m[1], " #")
			line, _, _ = strings.Cut(line, "   ")
			line, _, _ = strings.Cut(line, " && ")
			args := strings.Fields(line)[1:]
			n++
			if err := parses(args); err != nil {
				t.Errorf("%s: %q: %v", where, line, err)
			}
		}
	}
	if n < 20 {
		t.Errorf("command lines found: got %d, want 20 or more", n)
	}
}

// parses finds the command that args mean and parses its flags, without running it.
func parses(args []string) error {
	root := (&app{streams: streams{in: strings.NewReader(""), out: &bytes.Buffer{}, err: &bytes.Buffer{}}, format: table, signers: &signers{}}).rootCommand()
	root.InitDefaultHelpCmd()
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if cmd == root || cmd.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		return fmt.Errorf("there is no such command")
	}
	return parseFlags(cmd, rest)
}

func parseFlags(cmd *cobra.Command, rest []string) error {
	cmd.InitDefaultHelpFlag()
	return cmd.ParseFlags(rest)
}

// TestThreatsNameRealTests checks that every test that docs/THREATS.md names exists.
func TestThreatsNameRealTests(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/THREATS.md")
	if err != nil {
		t.Fatal(err)
	}
	real := map[string]bool{}
	err = filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(text, -1) {
			real[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)(?:/\\w+)?`").FindAllSubmatch(data, -1)
	if len(named) < 20 {
		t.Errorf("tests named: got %d, want 20 or more", len(named))
	}
	for _, m := range named {
		if !real[string(m[1])] {
			t.Errorf("there is no test %s", m[1])
		}
	}
}
