package check

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// TestRepository runs every rule over this repository.
func TestRepository(t *testing.T) {
	t.Parallel()
	tree, err := Load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range Rules() {
		t.Run(r.Name, func(t *testing.T) {
			t.Parallel()
			found, looked := r.Run(tree)
			for _, f := range found {
				t.Errorf("%s: %s", f.Where, f.What)
			}
			if looked == 0 {
				t.Error("looked at nothing")
			}
		})
	}
}

// TestEveryRuleHasExamples keeps a rule from being added without its proof, and
// a proof from outliving its rule.
func TestEveryRuleHasExamples(t *testing.T) {
	t.Parallel()
	tested := make(map[string]bool)
	for _, e := range examples {
		tested[e.rule] = true
	}
	for _, r := range Rules() {
		if !tested[r.Name] {
			t.Errorf("rule %q has no example that breaks it", r.Name)
		}
		delete(tested, r.Name)
	}
	for name := range tested {
		t.Errorf("examples name the rule %q, which is not there", name)
	}
}

// TestRulesCatch proves of every rule that it finds what it is for, and finds
// nothing in the same tree without it.
func TestRulesCatch(t *testing.T) {
	t.Parallel()
	for _, e := range examples {
		t.Run(e.rule+"/"+e.name, func(t *testing.T) {
			t.Parallel()
			rule := ruleNamed(t, e.rule)
			if found, _ := rule.Run(loadMap(t, good)); len(found) > 0 {
				t.Fatalf("found %v in the good tree, want nothing", found)
			}
			files := maps.Clone(good)
			maps.Copy(files, e.files)
			found, looked := rule.Run(loadMap(t, files))
			if looked == 0 {
				t.Error("looked at nothing")
			}
			if e.fine {
				if len(found) > 0 {
					t.Errorf("found %v, want nothing", found)
				}
				return
			}
			if len(found) != 1 {
				t.Fatalf("got %d findings %v, want 1", len(found), found)
			}
			if got := found[0].Where + ": " + found[0].What; !strings.Contains(got, e.want) {
				t.Errorf("got %q, want it to contain %q", got, e.want)
			}
		})
	}
}

// TestNothingToLookAt proves that a rule over an empty repository says that it
// looked at nothing, so that TestRepository fails when a rule loses its subject.
func TestNothingToLookAt(t *testing.T) {
	t.Parallel()
	tree := loadMap(t, map[string]string{"go.mod": ""})
	needsOnlyGoMod := []string{"replace", "left-overs", "outside names"}
	for _, r := range Rules() {
		found, looked := r.Run(tree)
		if want := slices.Contains(needsOnlyGoMod, r.Name); (looked > 0) != want || len(found) > 0 {
			t.Errorf("%s: got %v and %d looked at in an empty repository, want looked at: %v", r.Name, found, looked, want)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"no go.mod":       {"token/token.go": "package token\n"},
		"broken go.mod":   {"go.mod": "modul x\n"},
		"broken Go":       {"go.mod": "module x\n", "token/token.go": "package token\nfunc {\n"},
		"go.mod not root": {"scripts/go.mod": "module x\n"},
	} {
		if tree, err := Load(mapFS(files)); err == nil || tree != nil {
			t.Errorf("%s: got %v, %v, want an error and no tree", name, tree, err)
		}
	}
}

func TestLoadLeavesOut(t *testing.T) {
	t.Parallel()
	tree := loadMap(t, map[string]string{
		"token/a.go":              "package token\n",
		"token/a_windows.go":      "package token\n",
		"token/testdata/b.go":     "broken {",
		"scripts/tools/go.mod":    "module tools\n",
		"scripts/tools/c.go":      "package tools\n",
		"scripts/deps/deps.go":    "//go:build deps\n\npackage deps\n",
		"scripts/deps/ignored.go": "//go:build ignore\n\npackage deps\n",
		"scripts/deps/not.go":     "//go:build !deps\n\npackage deps\n",
		"bin/d.go":                "package bin\n",
		"token/e.go":              "package token // \x00\n",
	})
	var got []string
	for _, s := range tree.code {
		got = append(got, s.path)
	}
	want := []string{"scripts/deps/not.go", "token/a.go", "token/a_windows.go"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(tree.mods) != 2 || tree.module != modulePath {
		t.Errorf("got %d go.mod files and the module %q, want 2 and %q", len(tree.mods), tree.module, modulePath)
	}
}

func ruleNamed(t *testing.T, name string) Rule {
	t.Helper()
	i := slices.IndexFunc(Rules(), func(r Rule) bool { return r.Name == name })
	if i < 0 {
		t.Fatalf("there is no rule %q", name)
	}
	return Rules()[i]
}

func mapFS(files map[string]string) fstest.MapFS {
	fsys := make(fstest.MapFS)
	for name, data := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(data)}
	}
	return fsys
}

// loadMap loads files; an empty or absent go.mod is the module of the examples.
func loadMap(t *testing.T, files map[string]string) *Tree {
	t.Helper()
	fsys := mapFS(files)
	if files["go.mod"] == "" {
		fsys["go.mod"] = &fstest.MapFile{Data: []byte("module " + modulePath + "\n")}
	}
	tree, err := Load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}
