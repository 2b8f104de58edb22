package check

import "strings"

const modulePath = "example.org/x"

// good is a small repository in which every rule has something to look at and
// finds nothing.
var good = map[string]string{
	"go.mod":                   "module " + modulePath + "\n\nrequire go.uber.org/zap v1.0.0\n",
	"README.md":                "# X\n\nSee [the decision](docs/adr/0001-zap.md#why-zap-again).\n",
	"docs/adr/0001-zap.md":     "# 1. Zap\n\n## Why `zap`, again\n\n`go.uber.org/zap`\n",
	"token/token.go":           "// Package token is.\npackage token\n\n// Sign signs.\nfunc Sign(n int) {}\n",
	"token/token_test.go":      "package token\n\nimport \"testing\"\n\nfunc TestSign(t *testing.T) { Sign(1) }\n",
	"token/tokentest/a.go":     "// Package tokentest is.\npackage tokentest\n\n// Forge forges.\nfunc Forge() {}\n",
	"certs/certs.go":           "// Package certs is.\npackage certs\n\nimport \"crypto/tls\"\n\n// Config makes one.\nfunc Config() *tls.Config { return &tls.Config{} }\n",
	"certs/certs_test.go":      "package certs\n\nimport (\n\t\"testing\"\n\t\"" + modulePath + "/token/tokentest\"\n)\n\nfunc TestX(t *testing.T) { tokentest.Forge() }\n",
	"agent/agent.go":           "// Package agent is.\npackage agent\n\nimport \"" + modulePath + "/broker/api\"\n\nvar _ api.Page\n",
	"broker/broker.go":         "// Package broker is.\npackage broker\n\nimport \"go.uber.org/zap\"\n\nvar _ zap.Logger\n",
	"broker/api/api.go":        "// Package api is.\npackage api\n\n// A Page is one.\ntype Page struct{}\n",
	"cmd/consign/main.go":      "// Command consign is.\npackage main\n\nimport \"os\"\n\nfunc main() { os.Exit(0) }\n",
	"cmd/consign/main_test.go": "package main\n\nimport \"testing\"\n\nfunc TestMain(m *testing.M) { m.Run() }\n\nfunc TestRun(t *testing.T) {}\n",
}

// body returns a Go file of package name that imports pkgs, each under the name
// blank, and then holds code.
func body(name, code string, pkgs ...string) string {
	var b strings.Builder
	b.WriteString("package " + name + "\n\n")
	for _, p := range pkgs {
		b.WriteString("import \"" + p + "\"\n")
	}
	return b.String() + "\n" + code
}

// An example breaks one rule once, or shows that the rule lets something be.
var examples = []struct {
	rule, name string
	files      map[string]string
	want       string // part of the finding
	fine       bool   // nothing is to be found
}{
	{"layers", "agent imports broker", map[string]string{"agent/a.go": body("agent", "", modulePath+"/broker")}, "agent must not import broker", false},
	{"layers", "broker imports agent", map[string]string{"broker/a.go": body("broker", "", modulePath+"/agent/chunk")}, "broker must not import agent/chunk", false},
	{"layers", "api imports broker", map[string]string{"broker/api/a.go": body("api", "", modulePath+"/broker")}, "broker/api must not import broker", false},
	{"layers", "acl imports space", map[string]string{"broker/acl/a.go": body("acl", "", modulePath+"/broker/space")}, "broker/acl must not import broker/space", false},
	{"layers", "acl imports broker", map[string]string{"broker/acl/a_test.go": body("acl", "", modulePath+"/broker")}, "broker/acl must not import broker", false},
	{"layers", "space imports db", map[string]string{"broker/space/a.go": body("space", "", modulePath+"/broker/db")}, "broker/space must not import broker/db", false},
	{"layers", "space imports acl", map[string]string{"broker/space/a.go": body("space", "", modulePath+"/broker/acl", modulePath+"/token/problem")}, "", true},
	{"layers", "broker imports acl", map[string]string{"broker/a.go": body("broker", "", modulePath+"/broker/acl")}, "", true},
	{"layers", "token imports certs", map[string]string{"token/a.go": body("token", "", modulePath+"/certs")}, "token must not import certs", false},
	{"layers", "certs imports api", map[string]string{"certs/a.go": body("certs", "", modulePath+"/broker/api")}, "certs must not import broker/api", false},
	{"layers", "agent's test imports broker", map[string]string{"agent/a_test.go": body("agent", "", modulePath+"/broker/db")}, "must not import broker/db", false},
	{"layers", "name that only begins alike", map[string]string{"agent/a.go": body("agent", "", modulePath+"/tokens")}, "must not import tokens", false},
	{"layers", "a seventh root", map[string]string{"web/a.go": body("web", "")}, "none of the roots", false},
	{"layers", "cmd imports all", map[string]string{"cmd/consign/a.go": body("main", "", modulePath+"/agent", modulePath+"/broker/web")}, "", true},

	{"owners", "jose outside token", map[string]string{"certs/a.go": body("certs", "", "github.com/go-jose/go-jose/v4/json")}, "only token", false},
	{"owners", "jose in token", map[string]string{"token/a.go": body("token", "", "github.com/go-jose/go-jose/v4")}, "", true},
	{"owners", "quic outside link", map[string]string{"agent/a.go": body("agent", "", "github.com/quic-go/quic-go")}, "only agent/link", false},
	{"owners", "HTTP/3 anywhere", map[string]string{"agent/link/a.go": body("link", "", "github.com/quic-go/quic-go/http3")}, "not HTTP/3", false},
	{"owners", "SQL outside db", map[string]string{"broker/a_test.go": body("broker", "", "database/sql")}, onlySQL, false},
	{"owners", "SQL driver outside db", map[string]string{"broker/a.go": body("broker", "", "modernc.org/sqlite")}, onlySQL, false},
	{"owners", "programs started by the agent", map[string]string{"agent/a.go": body("agent", "", "os/exec")}, "starts programs", false},
	{"owners", "programs started for keys", map[string]string{"certs/signer/a.go": body("signer", "", "os/exec")}, "", true},
	{"owners", "HTTP in broker", map[string]string{"broker/a.go": body("broker", "", "net/http")}, onlyHTTP, false},
	{"owners", "HTTP test server in certs", map[string]string{"certs/a_test.go": body("certs", "", "net/http/httptest")}, onlyHTTP, false},
	{"owners", "HTTP in certs/issue", map[string]string{"certs/issue/a.go": body("issue", "", "net/http")}, "", true},
	{"owners", "zap in store", map[string]string{"agent/store/dir/a.go": body("dir", "", "go.uber.org/zap/zapcore")}, onlyLog, false},
	{"owners", "zap in agent", map[string]string{"agent/a.go": body("agent", "", "go.uber.org/zap")}, "", true},
	{"owners", "rapid in the program", map[string]string{"token/a.go": body("token", "", "pgregory.net/rapid")}, onlyTest, false},
	{"owners", "testing in the program", map[string]string{"token/a.go": body("token", "", "testing")}, onlyTest, false},
	{"owners", "testing in a test package", map[string]string{"token/tokentest/b.go": body("tokentest", "", "testing")}, "", true},
	{"owners", "old random numbers", map[string]string{"token/a_test.go": body("token", "", "math/rand")}, "math/rand/v2", false},
	{"owners", "new random numbers", map[string]string{"agent/a.go": body("agent", "", "math/rand/v2")}, "", true},

	{"test packages", "in the program", map[string]string{"agent/a.go": body("agent", "", modulePath+"/token/tokentest")}, "token/tokentest is for tests", false},
	{"test packages", "in a test package", map[string]string{"certs/certstest/a.go": body("certstest", "", modulePath+"/token/tokentest")}, "", true},
	{"effects", "blank import", map[string]string{"agent/a.go": "package agent\n\nimport _ \"image/png\"\n"}, "image/png", false},
	{"effects", "dot import", map[string]string{"agent/a_test.go": "package agent\n\nimport . \"strings\"\n"}, "strings", false},
	{"effects", "SQL driver in db", map[string]string{"broker/db/a.go": "package db\n\nimport _ \"modernc.org/sqlite\"\n"}, "", true},
	{"folders", "util", map[string]string{"agent/util/a.go": body("util", "")}, "agent/util", false},
	{"folders", "internal above", map[string]string{"agent/internal/x/a.go": body("x", "")}, "agent/internal/x", false},

	{"tls", "literal", map[string]string{"agent/a.go": body("agent", "var x = &tls.Config{}\n", "crypto/tls")}, "agent/a.go:5", false},
	{"tls", "new", map[string]string{"agent/a.go": body("agent", "var x = new(tls.Config)\n", "crypto/tls")}, "only certs", false},
	{"tls", "zero value", map[string]string{"agent/a.go": body("agent", "var x tls.Config\n", "crypto/tls")}, "only certs", false},
	{"tls", "under another name", map[string]string{"agent/a.go": "package agent\n\nimport q \"crypto/tls\"\n\nvar x = q.Config{}\n"}, "only certs", false},
	{"tls", "taken as an argument", map[string]string{"agent/a.go": body("agent", "func f(c *tls.Config) { _ = c.Clone() }\n", "crypto/tls")}, "", true},
	{"tls", "an attacker in a test", map[string]string{"agent/a_test.go": body("agent", "var x = &tls.Config{}\n", "crypto/tls")}, "", true},

	{"pure", "clock", map[string]string{"token/a.go": body("token", "func f() { _ = time.Now() }\n", "time")}, "reads no clock", false},
	{"pure", "clock by another name", map[string]string{"broker/acl/a.go": body("acl", "func f(t time.Time) { _ = time.Since(t) }\n", "time")}, "reads no clock", false},
	{"pure", "goroutine", map[string]string{"token/a.go": body("token", "func f() { go f() }\n")}, "no goroutine", false},
	{"pure", "files", map[string]string{"token/a.go": body("token", "", "os")}, "must not import os", false},
	{"pure", "files in a test", map[string]string{"token/a_test.go": body("token", "", "os")}, "", true},

	{"init", "init", map[string]string{"agent/a.go": body("agent", "func init() {}\n")}, "func init", false},
	{"init", "method", map[string]string{"agent/a.go": body("agent", "type x int\n\nfunc (x) init() {}\n")}, "", true},
	{"functions", "101 lines", map[string]string{"agent/a.go": body("agent", "func f() {"+strings.Repeat("\n", 100)+"}\n")}, "f has 101 lines", false},
	{"functions", "100 lines", map[string]string{"agent/a.go": body("agent", "func f() {"+strings.Repeat("\n", 99)+"}\n")}, "", true},
	{"functions", "7 parameters", map[string]string{"agent/a.go": body("agent", "func f(a, b, c, d, e, f int, g string) {}\n")}, "7 parameters", false},
	{"functions", "generated", map[string]string{"agent/a.go": "// Code generated by x. DO NOT EDIT.\n\n" + body("agent", "func f() {"+strings.Repeat("\n", 100)+"}\n")}, "", true},
	{"files", "701 lines", map[string]string{"agent/a.go": body("agent", strings.Repeat("\n", 698))}, "has 701 lines", false},
	{"files", "700 lines", map[string]string{"agent/a.go": body("agent", strings.Repeat("\n", 696))}, "", true},
	{"flags", "bool of a function", map[string]string{"agent/a.go": body("agent", "func Send(now bool) {}\n")}, "takes a bool", false},
	{"flags", "bool of a private type's method", map[string]string{"agent/a.go": body("agent", "type x int\n\nfunc (*x) Send(now bool) {}\n")}, "", true},
	{"exit", "in a helper", map[string]string{"cmd/consign/a.go": body("main", "func fail() { os.Exit(1) }\n", "os")}, "outside of main", false},
	{"skips", "t.Skip", map[string]string{"agent/a_test.go": body("agent", "func TestX(t *testing.T) { t.Skip() }\n", "testing")}, "agent/a_test.go:5", false},
	{"skips", "in a closure", map[string]string{"agent/a_test.go": body("agent", "func TestX(t *testing.T) { f := func() { t.Skipf(\"no\") }; f() }\n", "testing")}, "skips a test", false},
	{"sleeps", "time.Sleep", map[string]string{"agent/a_test.go": body("agent", "func TestX(t *testing.T) { time.Sleep(1) }\n", "testing", "time")}, "sleeps", false},
	{"sleeps", "time.After alone", map[string]string{"agent/a_test.go": body("agent", "func TestX(t *testing.T) { <-time.After(1) }\n", "testing", "time")}, "nothing but time", false},
	{"sleeps", "time.After beside a bubble", map[string]string{"agent/a_test.go": body("agent", "func TestX(t *testing.T) { synctest.Test(t, f); <-time.After(1) }\n", "testing", "testing/synctest", "time")}, "nothing but time", false},
	{"sleeps", "in a bubble", map[string]string{"agent/a_test.go": body("agent", "func TestX(t *testing.T) { synctest.Test(t, func(t *testing.T) { <-time.After(1) }) }\n", "testing", "testing/synctest", "time")}, "", true},
	{"sleeps", "one wait of several", map[string]string{"agent/a_test.go": body("agent", "func TestX(t *testing.T) { select { case <-c: case <-time.After(1): } }\n", "testing", "time")}, "", true},
	{"sleeps", "in the program", map[string]string{"agent/a.go": body("agent", "func f() { time.Sleep(1) }\n", "time")}, "", true},
	{"tests", "none", map[string]string{"agent/a.go": body("agent", "func f() {}\n")}, "agent: has code and no test", false},
	{"tests", "only TestMain", map[string]string{"agent/a.go": body("agent", "func f() {}\n"), "agent/a_test.go": body("agent", "func TestMain(m *testing.M) {}\n", "testing")}, "agent: has code", false},
	{"tests", "a fuzz target", map[string]string{"agent/a.go": body("agent", "func f() {}\n"), "agent/a_test.go": body("agent", "func FuzzX(f *testing.F) {}\n", "testing")}, "", true},
	{"tests", "a test package that nobody uses", map[string]string{"certs/certstest/a.go": body("certstest", "func f() {}\n")}, "certs/certstest", false},
	{"replace", "of the root", map[string]string{"go.mod": good["go.mod"] + "replace a.org/b => ../b\n"}, "go.mod: replaces a.org/b", false},
	{"replace", "of the tools", map[string]string{"scripts/tools/go.mod": "module tools\nreplace a.org/b => ../b\n"}, "scripts/tools/go.mod", false},

	{"package docs", "none", map[string]string{"agent/x/a.go": body("x", "")}, "has 0 package docs", false},
	{"package docs", "two", map[string]string{"agent/a.go": "// Package agent too.\n" + body("agent", "")}, "has 2 package docs", false},
	{"package docs", "another beginning", map[string]string{"agent/agent.go": "// This is agent.\n" + body("agent", "")}, `"Package agent "`, false},
	{"package docs", "command", map[string]string{"cmd/consign/main.go": "// Package main is.\n" + body("main", "")}, `"Command consign "`, false},
	{"package docs", "in a test", map[string]string{"agent/a_test.go": "// Package agent_test tests.\n" + body("agent_test", "")}, "is a test", false},
	{"exported docs", "function", map[string]string{"agent/a.go": body("agent", "func Send() {}\n")}, "Send is exported", false},
	{"exported docs", "another beginning", map[string]string{"agent/a.go": body("agent", "// This sends.\nfunc Send() {}\n")}, "begin with its name", false},
	{"exported docs", "method", map[string]string{"agent/a.go": body("agent", "// T is.\ntype T[K any] int\n\nfunc (*T[K]) Send() {}\n")}, "Send is exported", false},
	{"exported docs", "method of a private type", map[string]string{"agent/a.go": body("agent", "type x int\n\nfunc (x) Send() {}\n")}, "", true},
	{"exported docs", "interface method", map[string]string{"agent/a.go": body("agent", "// A T is.\ntype T interface{ Send() }\n")}, "Send is exported", false},
	{"exported docs", "type", map[string]string{"agent/a.go": body("agent", "type T int\n")}, "T is exported", false},
	{"exported docs", "type in a group", map[string]string{"agent/a.go": body("agent", "// Types.\ntype (\n\tT int\n)\n")}, "T is exported", false},
	{"exported docs", "variable", map[string]string{"agent/a.go": body("agent", "var V = 1\n")}, "V is exported", false},
	{"exported docs", "constant in a group", map[string]string{"agent/a.go": body("agent", "const (\n\tC = 1\n)\n")}, "C is exported", false},
	{"exported docs", "constants of a type", map[string]string{"agent/a.go": body("agent", "// T is.\ntype T int\n\nconst (\n\tC T = iota\n\tD\n)\n")}, "", true},

	{"left-overs", "in Go", map[string]string{"agent/a.go": body("agent", "// TO"+"DO: all\n")}, "agent/a.go:4", false},
	{"left-overs", "in a script", map[string]string{"scripts/x": "# FIX" + "ME\n"}, "scripts/x:1", false},
	{"left-overs", "a template", map[string]string{"scripts/x": "mktemp x.XX" + "XXXX\n"}, "", true},
	{"outside names", "a machine's path", map[string]string{"docs/a.md": "in /wo" + "rk/main\n"}, "docs/a.md:1", false},
	{"outside names", "a home", map[string]string{"agent/a.go": body("agent", "var x = \"/ro"+"ot/x\"\n")}, "agent/a.go:4", false},
	{"outside names", "a folder beside ours", map[string]string{"docs/a.md": "see ../sha" + "red/x\n"}, "outside", false},
	{"outside names", "a module proxy", map[string]string{"scripts/x": "GOPROXY=https://proxy.gol" + "ang.org\n"}, "outside", false},
	{"outside names", "a page that is not here", map[string]string{"docs/a.md": "as DES" + "IGN 4 says\n"}, "outside", false},
	{"outside names", "a longer path", map[string]string{"docs/a.md": "https://example.org/wo" + "rk/x and frame/ro" + "ot/x\n"}, "", true},
	{"decisions", "a gap", map[string]string{"docs/adr/0003-x.md": "# X\n"}, "should be 0002", false},
	{"decisions", "one number twice", map[string]string{"docs/adr/0001-x.md": "# X\n"}, "should be 0002", false},
	{"decisions", "no number", map[string]string{"docs/adr/x.md": "# X\n"}, "must be called", false},
	{"decisions", "no heading", map[string]string{"docs/adr/0002-x.md": "X\n"}, "heading", false},
	{"dependencies", "without a reason", map[string]string{"go.mod": good["go.mod"] + "require a.org/b v1.0.0\n"}, "a.org/b is required", false},
	{"dependencies", "indirect", map[string]string{"go.mod": good["go.mod"] + "require a.org/b v1.0.0 // indirect\n"}, "", true},
	{"links", "file", map[string]string{"docs/a.md": "[x](b.md)\n"}, "links to b.md", false},
	{"links", "anchor", map[string]string{"docs/a.md": "[x](../README.md#y)\n"}, "links to ../README.md#y", false},
	{"links", "anchor of the page", map[string]string{"docs/a.md": "# A\n\n# A\n\n[x](#a-1)\n"}, "", true},
	{"links", "from the root", map[string]string{"docs/a.md": "[x](/README.md)\n"}, "links to /README.md", false},
	{"links", "a folder, the web and code", map[string]string{"docs/a.md": "[x](../docs) [y](https://example.org/z) `[z](q.md)`\n\n```\n[z](q.md)\n```\n"}, "", true},
}
