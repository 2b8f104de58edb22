package check

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strconv"
	"strings"
)

func importRules() []Rule {
	return []Rule{
		{"layers", layers},
		{"owners", owners},
		{"test packages", testPackages},
		{"effects", effects},
		{"folders", folders},
		{"tls", tlsConfigs},
		{"pure", pure},
	}
}

// A layer says which of our own packages the packages below root may import,
// besides those below root itself.
type layer struct {
	root string
	may  []string
}

// layering is the direction of imports, most particular root first:
// token <- certs <- broker/api <- {agent, broker} <- cmd, scripts. The rules of the
// namespace know the contract and nothing else of the broker; broker and agents apply the same ones. Who keeps the namespace knows
// its rules and the database.
var layering = []layer{
	{"broker/acl", []string{"token"}},
	{"broker/space", []string{"token", "broker/acl"}},
	{"broker/tree", []string{"token", "broker/acl", "broker/space", "broker/db"}},
	{"broker/adopt", []string{"token", "broker/acl", "broker/api", "broker/db", "broker/space", "broker/tree"}},
	{"broker/api", []string{"token", "certs"}},
	{"broker/audit", []string{"token", "broker/api"}},
	{"token", nil},
	{"certs", []string{"token"}},
	{"agent", []string{"token", "certs", "broker/api", "broker/acl", "broker/space"}},
	{"broker", []string{"token", "certs"}},
	{"cmd", []string{"token", "certs", "agent", "broker"}},
	{"scripts", []string{"token", "certs", "agent", "broker", "cmd"}},
}

// layers keeps the direction of imports, in tests too.
func layers(t *Tree) (found []Finding, looked int) {
	for _, s := range t.code {
		i := slices.IndexFunc(layering, func(l layer) bool { return within(s.dir, l.root) })
		if i < 0 {
			looked++
			found = append(found, Finding{s.path, "is in none of the roots: a new root needs a line in layering"})
			continue
		}
		for spec, imported := range imports(s) {
			ours, ok := strings.CutPrefix(imported, t.module+"/")
			if !ok && imported != t.module {
				continue
			}
			looked++
			l := layering[i]
			if !within(ours, l.root) && !slices.ContainsFunc(l.may, func(r string) bool { return within(ours, r) }) {
				found = append(found, Finding{t.at(spec), fmt.Sprintf("%s must not import %s", s.dir, ours)})
			}
		}
	}
	return found, looked
}

// An owner says who alone may import a package and all below it. A folder that
// ends in "/..." stands for all below it too. Of several that match, the first
// counts.
type owner struct {
	pkg     string
	folders []string // none: nobody may
	tests   bool     // every test may
	why     string
}

const (
	onlySQL  = "broker/db is the only SQL"
	onlyHTTP = "HTTP belongs to broker/{api,web,hook}, certs/{issue,enrol,federation}, the drivers of object stores and what tests them, cmd and scripts"
	onlyLog  = "only what runs as a daemon or a command logs; everything else returns errors"
	onlyTest = "it is for tests"
)

// httpFolders are where HTTP is spoken.
var httpFolders = []string{
	"broker/api", "broker/web", "broker/web/cdmi", "broker/hook", "certs/issue", "certs/enrol", "certs/federation", "agent/store/bucket/remote", "agent/store/s3", "agent/store/azure", "agent/store/gcs",
	"agent/store/storetest/realstores", "cmd/...", "scripts/...",
}

var ownership = []owner{
	{"github.com/go-jose/go-jose", []string{"token/..."}, false, "only token signs and verifies"},
	{"github.com/quic-go/quic-go/http3", nil, false, "we speak QUIC, not HTTP/3"},
	{"github.com/quic-go/quic-go", []string{"agent/link/..."}, false, "only agent/link knows the transport"},
	{"database/sql", []string{"broker/db/..."}, false, onlySQL},
	{"modernc.org/sqlite", []string{"broker/db/..."}, false, onlySQL},
	{"github.com/jackc/pgx", []string{"broker/db/..."}, false, onlySQL},
	{"github.com/pressly/goose", []string{"broker/db/..."}, false, onlySQL},
	{"os/exec", []string{"certs/signer", "cmd/...", "scripts/...", "agent/store/storetest/..."}, true, "certs/signer starts what holds a key, and commands what they show; nothing else starts programs"},
	{"net/http", httpFolders, false, onlyHTTP},
	{"golang.org/x/crypto/acme", []string{"certs/enrol"}, false, "only certs/enrol speaks ACME"},
	{"github.com/danielgtaylor/huma", []string{"broker/web/...", "scripts/..."}, false, "only broker/web serves the API"},
	{"github.com/prometheus/client_golang/prometheus/testutil", nil, true, onlyTest},
	{"go.uber.org/zap", []string{"agent", "broker/...", "cmd/...", "scripts/..."}, false, onlyLog},
	{"github.com/spf13", []string{"cmd/...", "scripts/..."}, false, "only cmd has a command line"},
	{"github.com/vbauerster/mpb", []string{"cmd/..."}, false, "only cmd draws"},
	{"github.com/minio/minio-go", []string{"agent/store/s3/..."}, false, "one driver a cloud SDK"},
	{"github.com/Azure/azure-sdk-for-go", []string{"agent/store/azure/..."}, false, "one driver a cloud SDK"},
	{"google.golang.org/api", []string{"agent/store/gcs/..."}, false, "one driver a cloud SDK"},
	{"cloud.google.com/go", nil, false, "agent/store/gcs uses google.golang.org/api"},
	{"pgregory.net/rapid", nil, true, onlyTest},
	{"go.uber.org/goleak", nil, true, onlyTest},
	{"github.com/rogpeppe/go-internal", nil, true, onlyTest},
	{"testing", []string{"scripts/..."}, true, onlyTest},
	{"math/rand", nil, false, "crypto/rand, or math/rand/v2 in tests and for jitter"},
	{"io/ioutil", nil, false, "io and os have it"},
	{"github.com/pkg/errors", nil, false, "errors and fmt have it"},
}

// owners keeps each foreign package with the package that wraps it.
func owners(t *Tree) (found []Finding, looked int) {
	for _, s := range t.code {
		for spec, imported := range imports(s) {
			i := slices.IndexFunc(ownership, func(o owner) bool { return o.covers(imported) })
			if i < 0 {
				continue
			}
			looked++
			if o := ownership[i]; !o.allows(s) {
				found = append(found, Finding{t.at(spec), fmt.Sprintf("%s must not import %s: %s", s.dir, imported, o.why)})
			}
		}
	}
	return found, looked
}

func (o owner) covers(imported string) bool {
	if o.pkg == "math/rand" {
		return imported == o.pkg // not its v2
	}
	return within(imported, o.pkg)
}

func (o owner) allows(s *source) bool {
	if o.tests && (s.test || isTestPackage(s.dir)) {
		return true
	}
	return slices.ContainsFunc(o.folders, func(f string) bool {
		root, all := strings.CutSuffix(f, "/...")
		return s.dir == root || all && within(s.dir, root)
	})
}

// testPackages keeps our packages whose name ends in "test" out of the program.
func testPackages(t *Tree) (found []Finding, looked int) {
	for _, s := range t.code {
		for spec, imported := range imports(s) {
			ours, ok := strings.CutPrefix(imported, t.module+"/")
			if !ok || !isTestPackage(ours) {
				continue
			}
			looked++
			if !s.test && !isTestPackage(s.dir) {
				found = append(found, Finding{t.at(spec), ours + " is for tests, and this file is none"})
			}
		}
	}
	return found, looked
}

// effects allows an import for its effect in tests, in broker/db (an SQL driver
// has no other door) and for embed.
func effects(t *Tree) (found []Finding, looked int) {
	for _, s := range t.code {
		for spec, imported := range imports(s) {
			looked++
			if spec.Name == nil {
				continue
			}
			blank := spec.Name.Name == "_" && !s.test && imported != "embed" && !within(s.dir, "broker/db")
			if blank || spec.Name.Name == "." {
				found = append(found, Finding{t.at(spec), "imports " + imported + " for its effect, or without its name"})
			}
		}
	}
	return found, looked
}

// vague are names of folders that say nothing of what is in them.
var vague = []string{"pkg", "util", "utils", "common", "types", "models", "helpers", "internal", "misc", "lib"}

// folders keeps folders of code from having a name that says nothing.
func folders(t *Tree) (found []Finding, looked int) {
	var seen []string
	for _, s := range t.code {
		if slices.Contains(seen, s.dir) {
			continue
		}
		seen = append(seen, s.dir)
		looked++
		for name := range strings.SplitSeq(s.dir, "/") {
			if slices.Contains(vague, name) {
				found = append(found, Finding{s.dir, "has a name that says nothing: name the package after what it provides"})
			}
		}
	}
	return found, looked
}

// tlsConfigs lets nobody but certs make a tls.Config. A test may: an attacker
// has to be able to.
func tlsConfigs(t *Tree) (found []Finding, looked int) {
	for _, s := range t.code {
		name := localName(s, "crypto/tls")
		if name == "" {
			continue
		}
		looked++
		if s.test || within(s.dir, "certs") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if made := maker(n); made != nil && isSelector(made, name, "Config") {
				found = append(found, Finding{t.at(n), "makes a tls.Config: only certs does"})
			}
			return true
		})
	}
	return found, looked
}

// maker returns the type that n makes a value of, or nil: T{}, new(T), var x T,
// and a struct's field of type T.
func maker(n ast.Node) ast.Expr {
	switch n := n.(type) {
	case *ast.CompositeLit:
		return n.Type
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "new" && len(n.Args) == 1 {
			return n.Args[0]
		}
	case *ast.ValueSpec:
		return n.Type
	case *ast.Field:
		return n.Type
	}
	return nil
}

// purity are the folders whose code reads no clock and starts no goroutine, and
// does no I/O: what they decide, anyone can decide again.
var purity = []string{"token", "agent/chunk", "broker/space", "broker/acl", "broker/audit"}

// impure are the packages that do I/O or log.
var impure = []string{"os", "os/exec", "net", "syscall", "log", "log/slog", "golang.org/x/sys/unix"}

// pure keeps clock, goroutines and I/O out of the packages that promise so.
func pure(t *Tree) (found []Finding, looked int) {
	for _, s := range t.code {
		pureFolder := slices.ContainsFunc(purity, func(p string) bool { return within(s.dir, p) })
		if s.test || !pureFolder || isTestPackage(s.dir) {
			continue
		}
		looked++
		for spec, imported := range imports(s) {
			if slices.Contains(impure, imported) {
				found = append(found, Finding{t.at(spec), s.dir + " does no I/O and must not import " + imported})
			}
		}
		clock := localName(s, "time")
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch e := n.(type) {
			case *ast.GoStmt:
				found = append(found, Finding{t.at(n), s.dir + " starts no goroutine"})
			case *ast.SelectorExpr:
				if clock != "" && (isSelector(e, clock, "Now") || isSelector(e, clock, "Since") || isSelector(e, clock, "Until")) {
					found = append(found, Finding{t.at(n), s.dir + " reads no clock: take now as an argument"})
				}
			}
			return true
		})
	}
	return found, looked
}

// imports yields the imports of a file with their paths.
func imports(s *source) func(yield func(*ast.ImportSpec, string) bool) {
	return func(yield func(*ast.ImportSpec, string) bool) {
		for _, spec := range s.file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err == nil && !yield(spec, name) {
				return
			}
		}
	}
}

// localName returns how the file calls an imported package, or "".
func localName(s *source, pkg string) string {
	for spec, imported := range imports(s) {
		if imported != pkg {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path.Base(pkg)
	}
	return ""
}

// isSelector reports whether e is pkg.name.
func isSelector(e ast.Expr, pkg, name string) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && x.Name == pkg
}
