package check

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
)

// Limits on the shape of code. Lines unless the name says otherwise.
const (
	maxFunc   = 100
	maxFile   = 700
	maxParams = 6 // parameters
)

func codeRules() []Rule {
	return []Rule{
		{"init", inits},
		{"functions", functions},
		{"files", fileSizes},
		{"flags", boolParams},
		{"exit", exits},
		{"skips", skips},
		{"sleeps", sleeps},
		{"tests", tested},
		{"replace", replaces},
	}
}

// funcs calls f for every function with a body that nobody generated.
func (t *Tree) funcs(f func(*source, *ast.FuncDecl)) {
	for _, s := range t.code {
		if s.generated {
			continue
		}
		for _, d := range s.file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				f(s, fn)
			}
		}
	}
}

// inits forbids func init: what runs must be called.
func inits(t *Tree) (found []Finding, looked int) {
	t.funcs(func(_ *source, fn *ast.FuncDecl) {
		looked++
		if fn.Recv == nil && fn.Name.Name == "init" {
			found = append(found, Finding{t.at(fn), "is func init: what runs must be called"})
		}
	})
	return found, looked
}

// functions bounds length and number of parameters.
func functions(t *Tree) (found []Finding, looked int) {
	t.funcs(func(_ *source, fn *ast.FuncDecl) {
		looked++
		// From the word func, so that its doc does not count.
		n := t.fset.Position(fn.End()).Line - t.fset.Position(fn.Type.Pos()).Line + 1
		if n > maxFunc {
			found = append(found, Finding{t.at(fn), fmt.Sprintf("%s has %d lines, at most %d", fn.Name.Name, n, maxFunc)})
		}
		if p := fn.Type.Params.NumFields(); p > maxParams {
			found = append(found, Finding{t.at(fn), fmt.Sprintf("%s has %d parameters, at most %d", fn.Name.Name, p, maxParams)})
		}
	})
	return found, looked
}

// fileSizes bounds the length of a Go file.
func fileSizes(t *Tree) (found []Finding, looked int) {
	for _, s := range t.code {
		if s.generated {
			continue
		}
		looked++
		if n := t.fset.File(s.file.Package).LineCount(); n > maxFile {
			found = append(found, Finding{s.path, fmt.Sprintf("has %d lines, at most %d", n, maxFile)})
		}
	}
	return found, looked
}

// boolParams forbids parameters of type bool in exported functions: at the call
// nobody can read what true means.
func boolParams(t *Tree) (found []Finding, looked int) {
	t.funcs(func(s *source, fn *ast.FuncDecl) {
		if s.test || !exported(fn) {
			return
		}
		looked++
		for _, p := range fn.Type.Params.List {
			if id, ok := p.Type.(*ast.Ident); ok && id.Name == "bool" {
				found = append(found, Finding{t.at(p), fn.Name.Name + " is exported and takes a bool: use two functions or a named type"})
			}
		}
	})
	return found, looked
}

// exits allows os.Exit only in func main and TestMain: elsewhere it skips the
// deferred calls of everybody above.
func exits(t *Tree) (found []Finding, looked int) {
	t.funcs(func(s *source, fn *ast.FuncDecl) {
		looked++
		name := localName(s, "os")
		if name == "" || fn.Recv == nil && (fn.Name.Name == "main" || fn.Name.Name == "TestMain") {
			return
		}
		ast.Inspect(fn, func(n ast.Node) bool {
			if e, ok := n.(*ast.SelectorExpr); ok && isSelector(e, name, "Exit") {
				found = append(found, Finding{t.at(n), "calls os.Exit outside of main"})
			}
			return true
		})
	})
	return found, looked
}

// skipping are the methods of a test that leave it out.
var skipping = []string{"Skip", "Skipf", "SkipNow"}

// skips forbids leaving a test out.
func skips(t *Tree) (found []Finding, looked int) {
	t.funcs(func(s *source, fn *ast.FuncDecl) {
		if !s.test {
			return
		}
		looked++
		ast.Inspect(fn, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains(skipping, sel.Sel.Name) {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && slices.Contains([]string{"t", "tb", "b", "f", "rt"}, x.Name) {
				found = append(found, Finding{t.at(n), "skips a test: make it run, or remove it"})
			}
			return true
		})
	})
	return found, looked
}

// sleeps forbids time.Sleep in tests, and waiting for time.After alone outside of
// a synctest bubble, which is the same: they wait for what they wait for.
func sleeps(t *Tree) (found []Finding, looked int) {
	t.funcs(func(s *source, fn *ast.FuncDecl) {
		if !s.test {
			return
		}
		looked++
		name := localName(s, "time")
		if name == "" {
			return
		}
		bubble := localName(s, "testing/synctest")
		var look func(ast.Node, bool)
		look = func(root ast.Node, inside bool) {
			ast.Inspect(root, func(n ast.Node) bool {
				switch x := n.(type) {
				case *ast.CallExpr:
					if !inside && bubble != "" && isSelector(x.Fun, bubble, "Test") {
						look(x, true)
						return false
					}
				case *ast.CommClause: // one wait of several
					for _, st := range x.Body {
						look(st, inside)
					}
					return false
				case *ast.SelectorExpr:
					if isSelector(x, name, "Sleep") {
						found = append(found, Finding{t.at(x), "sleeps: use a channel, a deadline or testing/synctest (and a timer inside it)"})
					}
				case *ast.UnaryExpr:
					if call, ok := x.X.(*ast.CallExpr); ok && !inside && x.Op == token.ARROW && isSelector(call.Fun, name, "After") {
						found = append(found, Finding{t.at(x), "sleeps: waits for nothing but time, outside of testing/synctest"})
					}
				}
				return true
			})
		}
		look(fn.Body, false)
	})
	return found, looked
}

// tested demands a test of every package that has code to run. A package made
// for tests must be imported by one instead. A command below scripts is a test
// of something else, and is left out.
func tested(t *Tree) (found []Finding, looked int) {
	for _, dir := range t.packages() {
		files := t.in(dir)
		if !slices.ContainsFunc(files, runs) || within(dir, "scripts") && files[0].file.Name.Name == "main" {
			continue
		}
		looked++
		switch {
		case slices.ContainsFunc(files, hasTest):
		case isTestPackage(dir) && slices.ContainsFunc(t.code, func(s *source) bool { return s.test && importsPackage(s, t.module+"/"+dir) }):
		default:
			found = append(found, Finding{dir, "has code and no test"})
		}
	}
	return found, looked
}

// runs reports whether a file that is no test has a function with a body.
func runs(s *source) bool {
	return !s.test && slices.ContainsFunc(s.file.Decls, func(d ast.Decl) bool {
		fn, ok := d.(*ast.FuncDecl)
		return ok && fn.Body != nil
	})
}

// hasTest reports whether a file has a test, fuzz target or example.
func hasTest(s *source) bool {
	return s.test && slices.ContainsFunc(s.file.Decls, func(d ast.Decl) bool {
		fn, ok := d.(*ast.FuncDecl)
		return ok && fn.Recv == nil && fn.Name.Name != "TestMain" && isTestName(fn.Name.Name)
	})
}

func isTestName(name string) bool {
	for _, prefix := range []string{"Test", "Fuzz", "Example"} {
		if len(name) >= len(prefix) && name[:len(prefix)] == prefix {
			return true
		}
	}
	return false
}

func importsPackage(s *source, pkg string) bool {
	for _, imported := range imports(s) {
		if imported == pkg {
			return true
		}
	}
	return false
}

// replaces forbids replace directives, which do not hold for who imports us.
func replaces(t *Tree) (found []Finding, looked int) {
	for _, m := range t.mods {
		looked++
		for _, r := range m.Replace {
			found = append(found, Finding{m.Syntax.Name, "replaces " + r.Old.Path})
		}
	}
	return found, looked
}

// exported reports whether a function can be called from another package.
func exported(fn *ast.FuncDecl) bool {
	return fn.Name.IsExported() && (fn.Recv == nil || token.IsExported(receiver(fn)))
}

// receiver returns the name of the type that a method belongs to.
func receiver(fn *ast.FuncDecl) string {
	e := fn.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}
