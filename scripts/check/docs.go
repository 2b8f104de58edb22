package check

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
)

func docRules() []Rule {
	return []Rule{
		{"package docs", packageDocs},
		{"exported docs", exportedDocs},
	}
}

// packageDocs demands of every package one doc, in one file, that begins with
// "Package x" or, for a command, "Command x".
func packageDocs(t *Tree) (found []Finding, looked int) {
	for _, dir := range t.packages() {
		looked++
		var docs []string
		for _, s := range t.in(dir) {
			if s.file.Doc == nil {
				continue
			}
			if s.test {
				found = append(found, Finding{s.path, "is a test and has the doc of a package"})
				continue
			}
			docs = append(docs, s.path)
			want := "Package " + s.file.Name.Name + " "
			if s.file.Name.Name == "main" {
				want = "Command " + path.Base(dir) + " "
			}
			if text := strings.ReplaceAll(s.file.Doc.Text(), "\n", " "); !strings.HasPrefix(text, want) {
				found = append(found, Finding{s.path, fmt.Sprintf("its doc must begin with %q", want)})
			}
		}
		if len(docs) != 1 {
			found = append(found, Finding{dir, fmt.Sprintf("has %d package docs, must have one: %v", len(docs), docs)})
		}
	}
	return found, looked
}

// exportedDocs demands a doc of every exported name, also of the methods of an
// exported interface. The doc of a function, method or type begins with its
// name. A constant of a named type may leave it out, if it stands in a group:
// the type's doc speaks for it.
func exportedDocs(t *Tree) (found []Finding, looked int) {
	for _, s := range t.code {
		if s.test || s.generated || s.file.Name.Name == "main" {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if exported(d) {
					looked++
					found = append(found, t.named(d, d.Name.Name, d.Doc)...)
				}
			case *ast.GenDecl:
				f, n := t.genDocs(d)
				found, looked = append(found, f...), looked+n
			}
		}
	}
	return found, looked
}

func (t *Tree) genDocs(d *ast.GenDecl) (found []Finding, looked int) {
	enum := false // a constant above has a type of its own
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if !spec.Name.IsExported() {
				continue
			}
			doc := spec.Doc
			if doc == nil && !d.Lparen.IsValid() {
				doc = d.Doc
			}
			looked++
			found = append(found, t.named(spec, spec.Name.Name, doc)...)
			f, n := t.interfaceDocs(spec)
			found, looked = append(found, f...), looked+n
		case *ast.ValueSpec:
			enum = d.Tok == token.CONST && d.Lparen.IsValid() && (spec.Type != nil || enum && len(spec.Values) == 0)
			if !slices.ContainsFunc(spec.Names, (*ast.Ident).IsExported) {
				continue
			}
			looked++
			if spec.Doc == nil && spec.Comment == nil && d.Doc == nil && !enum {
				found = append(found, Finding{t.at(spec), spec.Names[0].Name + " is exported and has no doc"})
			}
		}
	}
	return found, looked
}

func (t *Tree) interfaceDocs(spec *ast.TypeSpec) (found []Finding, looked int) {
	iface, ok := spec.Type.(*ast.InterfaceType)
	if !ok {
		return nil, 0
	}
	for _, m := range iface.Methods.List {
		if len(m.Names) == 0 || !m.Names[0].IsExported() {
			continue
		}
		looked++
		found = append(found, t.named(m, m.Names[0].Name, m.Doc)...)
	}
	return found, looked
}

// named reports a doc that is missing or does not begin with the name.
func (t *Tree) named(n ast.Node, name string, doc *ast.CommentGroup) []Finding {
	words := strings.Fields(doc.Text())
	if len(words) == 0 {
		return []Finding{{t.at(n), name + " is exported and has no doc"}}
	}
	if slices.Contains([]string{"A", "An", "The"}, words[0]) {
		words = words[1:]
	}
	if len(words) == 0 || strings.TrimRight(words[0], ",.:;") != name && strings.TrimSuffix(words[0], "'s") != name {
		return []Finding{{t.at(n), "the doc of " + name + " must begin with its name"}}
	}
	return nil
}
