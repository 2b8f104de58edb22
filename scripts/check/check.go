// Package check holds the rules of this repository that a compiler does not
// know: which package may import which, what every package must document, how
// long a function may be, what a text must not name.
//
// Each rule reads a Tree and says two things: what it found wrong, and how many
// things it looked at. A rule that looked at nothing has failed, because a check
// that checks nothing must not pass. The tests of the package run every rule
// over the repository, and prove on a bad example that each can fail.
//
// It does not judge what the compiler, go vet or the linter already judge, it
// does not run git or any other program, and it changes nothing.
package check

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
)

// A Finding is one breach of a rule.
type Finding struct {
	Where string // a path from the root of the tree, with ":line" where there is one
	What  string // one sentence: what is wrong and, if it is not plain, what to do
}

// A Rule is one promise about the repository. Run does not change the tree and
// returns the breaches in the order of the tree, and the number of things it
// looked at.
type Rule struct {
	Name string
	Run  func(*Tree) (found []Finding, looked int)
}

// Rules returns every rule, in the order in which they are documented.
func Rules() []Rule {
	return slices.Concat(importRules(), codeRules(), docRules(), textRules())
}

// maxText is the size in bytes above which a file is not read as text.
const maxText = 4 << 20

// skipped are the folders that hold nothing of the repository itself.
var skipped = []string{".git", "bin", "dist", "fuzz-findings", "node_modules"}

// A Tree is the text of a repository, read once. It is not changed after Load.
type Tree struct {
	module string
	fset   *token.FileSet
	texts  []text
	code   []*source
	paths  map[string]bool // every file and folder, also those that are no text
	mods   []*modfile.File // go.mod files, the root's first
}

// A text is one file that has no NUL byte.
type text struct {
	path string
	data []byte
}

// A source is one Go file of the module, of any platform. Those in testdata, in
// a module of their own or under a build tag "deps" or "ignore" are left out.
type source struct {
	path, dir string
	file      *ast.File
	test      bool
	generated bool
}

// Load reads the repository whose root is fsys. It fails if there is no go.mod,
// or if a Go file cannot be parsed.
func Load(fsys fs.FS) (*Tree, error) {
	t := &Tree{fset: token.NewFileSet(), paths: map[string]bool{".": true}}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed while we walked
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(skipped, d.Name()):
			return fs.SkipDir
		case name == ".git":
			return nil // in a worktree it is a file
		}
		t.paths[name] = true
		if !d.Type().IsRegular() {
			return nil
		}
		return t.read(fsys, name, d)
	})
	if err != nil {
		return nil, fmt.Errorf("reading the repository: %w", err)
	}
	if err := t.parseModules(); err != nil {
		return nil, err
	}
	if err := t.parseCode(); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Tree) read(fsys fs.FS, name string, d fs.DirEntry) error {
	info, err := d.Info()
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() > maxText {
		return nil
	}
	if err != nil {
		return err
	}
	data, err := fs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if bytes.IndexByte(data, 0) < 0 {
		t.texts = append(t.texts, text{name, data})
	}
	return nil
}

// parseModules reads every go.mod, the root's first.
func (t *Tree) parseModules() error {
	for _, f := range t.texts {
		if path.Base(f.path) != "go.mod" || strings.Contains(f.path, "testdata/") {
			continue
		}
		mod, err := modfile.Parse(f.path, f.data, nil)
		if err != nil {
			return fmt.Errorf("parsing %s: %w", f.path, err)
		}
		if f.path != "go.mod" {
			t.mods = append(t.mods, mod)
			continue
		}
		t.module = mod.Module.Mod.Path
		t.mods = slices.Insert(t.mods, 0, mod)
	}
	if t.module == "" {
		return errors.New("the repository has no go.mod at its root")
	}
	return nil
}

func (t *Tree) parseCode() error {
	for _, f := range t.texts {
		if path.Ext(f.path) != ".go" || !t.ours(f.path) {
			continue
		}
		file, err := parser.ParseFile(t.fset, f.path, f.data, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return fmt.Errorf("parsing Go: %w", err)
		}
		if neverBuilt(file) {
			continue
		}
		t.code = append(t.code, &source{
			path:      f.path,
			dir:       path.Dir(f.path),
			file:      file,
			test:      strings.HasSuffix(f.path, "_test.go"),
			generated: ast.IsGenerated(file),
		})
	}
	return nil
}

// ours reports whether name is of the root module and not test data.
func (t *Tree) ours(name string) bool {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if path.Base(dir) == "testdata" || t.paths[dir+"/go.mod"] {
			return false
		}
	}
	return true
}

// neverBuilt reports whether a build constraint asks for the tag deps (it holds
// requirements in go.mod) or ignore.
func neverBuilt(f *ast.File) bool {
	for _, group := range f.Comments {
		if group.Pos() > f.Package {
			break
		}
		for _, c := range group.List {
			expr, err := constraint.Parse(c.Text)
			if err == nil && !expr.Eval(func(tag string) bool { return tag != "deps" && tag != "ignore" }) &&
				expr.Eval(func(string) bool { return true }) {
				return true
			}
		}
	}
	return false
}

// at returns where a node stands.
func (t *Tree) at(n ast.Node) string {
	p := t.fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

// packages returns the folders that hold code which is no test, in order.
func (t *Tree) packages() []string {
	var dirs []string
	for _, s := range t.code {
		if !s.test && !slices.Contains(dirs, s.dir) {
			dirs = append(dirs, s.dir)
		}
	}
	return dirs
}

// in returns the files of one folder.
func (t *Tree) in(dir string) []*source {
	var files []*source
	for _, s := range t.code {
		if s.dir == dir {
			files = append(files, s)
		}
	}
	return files
}

// isTestPackage reports whether dir is a package made for tests, by its name.
func isTestPackage(dir string) bool {
	base := path.Base(dir)
	return strings.HasSuffix(base, "test") && base != "test"
}

// within reports whether dir is root or below it.
func within(dir, root string) bool {
	return dir == root || strings.HasPrefix(dir, root+"/")
}
