package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent"
	"github.com/consign-transfer/consign/agent/policy"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const ruledConfig = `
exports:
  - container: data
    dir: /srv/data
    rules:
      - {who: ["group:staff", spiffe://north/subscriber/bob], may: [read, list], below: open, to: [south], max_object: 1GiB, rate: 10MiB}
      - {who: ["*"], may: [create], below: in, from: [south], max_batch_items: 10, max_batch_bytes: 1MiB}
  - {container: more, dir: /srv/more, read: true, subscribers: [spiffe://north/subscriber/bob]}
groups:
  staff: [spiffe://north/subscriber/alice]
groups_file: groups.yaml
`

// rereader is what keeps the policy of ruledConfig, and what it has set last.
func rereader(t *testing.T, text string) (p *policyFiles, file string, got *[]agent.Export, groups *policy.Groups) {
	t.Helper()
	file = write(t, "agent.yaml", text)
	got, groups = new([]agent.Export), new(policy.Groups)
	return &policyFiles{
		files: []string{filepath.Join(t.TempDir(), "none.yaml"), file}, log: zap.NewNop(),
		read: func() (cfg agentConfig, err error) {
			_, err = newApp().load(&cfg, loading{files: []string{file}})
			return cfg, err
		},
		set: func(es []agent.Export, gs policy.Groups) error { *got, *groups = es, gs; return nil },
	}, file, got, groups
}

// TestPolicyIsReadAgain: rules and groups are taken from the files when they change, and only then; a bad file changes nothing.
func TestPolicyIsReadAgain(t *testing.T) {
	t.Parallel()
	p, file, got, groups := rereader(t, ruledConfig)
	list := filepath.Join(filepath.Dir(file), "groups.yaml")
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reload := func(want bool, bad problem.Code) {
		t.Helper()
		if changed, err := p.Reload(); changed != want || problem.Of(err) != bad {
			t.Fatalf("got %t and %v, want %t and %q", changed, err, want, bad)
		}
	}
	reload(false, problem.BadConfig) // the file of groups is not there
	put(list, "interns: [spiffe://north/subscriber/carol]\n")
	reload(true, "")
	rules := (*got)[0].Rules
	want := []string{
		`group:staff, spiffe://north/subscriber/bob may read, list below "open" to south, at most 1073741824 bytes an object, at most 10485760 bytes a second`,
		`* may create below "in" from south, at most 1048576 bytes a batch, at most 10 items a batch`,
	}
	if len(rules) != 2 || rules[0].String() != want[0] || rules[1].String() != want[1] {
		t.Errorf("got the rules %v, want %q", rules, want)
	}
	if simple := (*got)[1]; !simple.Read || simple.Create || len(simple.Subscribers) != 1 {
		t.Errorf("got %+v, want the simple settings as they are", simple)
	}
	if g := *groups; len(g) != 2 || g["staff"][0] != "spiffe://north/subscriber/alice" || g["interns"][0] != "spiffe://north/subscriber/carol" {
		t.Errorf("got the groups %v, want those of both files", g)
	}
	reload(true, "") // the file of groups was not known when the files were looked at
	reload(false, "")
	put(list, "interns: []\n")
	reload(true, "")
	if n := len((*groups)["interns"]); n != 0 {
		t.Errorf("got %d interns, want none any more", n)
	}
	for name, text := range map[string]string{
		"not YAML": "interns: [", "a list": "[a]", "a group that is no list": "interns: x", "a group twice": "interns: []\ninterns: []\n",
		"a group of the configuration": "staff: []\n", "too large": strings.Repeat("#", maxGroupsSize+1),
	} {
		put(list, text)
		if changed, err := p.Reload(); changed || problem.Of(err) != problem.BadConfig {
			t.Errorf("%s: got %t and %v, want %q", name, changed, err, problem.BadConfig)
		}
	}
	put(list, "interns: []\n")
	put(file, strings.Replace(ruledConfig, "may:", "can:", 1))
	reload(false, problem.BadConfig)
	put(file, strings.Replace(ruledConfig, "below: open, ", "", 1))
	reload(true, "")
	if rules := (*got)[0].Rules; rules[0].Below != token.ObjectName("") {
		t.Errorf("got %v, want the rule without its prefix", rules[0])
	}
}

// TestCheckShowsTheRules: --check spells each rule, also those that the simple settings stand for.
func TestCheckShowsTheRules(t *testing.T) {
	t.Parallel()
	p, _, got, _ := rereader(t, strings.Replace(ruledConfig, "groups_file: groups.yaml", "", 1))
	if _, err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	out := policySettings(*got, []setting{{Key: "exports.1.container", Origin: "agent.yaml:8"}})
	if len(out) != 3 || out[2].Key != "policy.more.1" || out[2].Value != "spiffe://north/subscriber/bob may read, list" || out[2].Origin != "agent.yaml:8" {
		t.Errorf("got %+v, want three rules, the last of which the simple settings stand for", out)
	}
}
