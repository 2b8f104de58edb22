package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestEditKeepsEveryOtherByte adds and removes accounts in files of many forms: what is not an account stays as it was, and what
// cannot be edited is refused.
func TestEditKeepsEveryOtherByte(t *testing.T) {
	t.Parallel()
	added := keyPair{Cert: "/c/new.pem", Key: "/c/new.key"}
	for name, tt := range map[string]struct {
		text   string
		remove []int
		add    bool
		want   string // empty: refused
	}{
		"empty":               {"", nil, true, "accounts:\n  - cert: /c/new.pem\n    key: /c/new.key\n"},
		"only a comment":      {"# x", nil, true, "# x\naccounts:\n  - cert: /c/new.pem\n    key: /c/new.key\n"},
		"in the middle":       {"accounts: # all\n- cert: a\n  key: b # b\n\n# trust\ntrust:\n  x: y\n", nil, true, "accounts: # all\n- cert: a\n  key: b # b\n- cert: /c/new.pem\n  key: /c/new.key\n\n# trust\ntrust:\n  x: y\n"},
		"comment within":      {"accounts:\n  - cert: a\n    key: b\n    # old\ntrust: {}\n", nil, true, "accounts:\n  - cert: a\n    key: b\n    # old\n  - cert: /c/new.pem\n    key: /c/new.key\ntrust: {}\n"},
		"first of two":        {"accounts:\n  # one\n  - cert: a\n    key: b\n  # two\n  - cert: c\n    key: d\n", []int{0}, false, "accounts:\n  # one\n  # two\n  - cert: c\n    key: d\n"},
		"second of two":       {"accounts:\n  - cert: a\n    key: b\n  # two\n  - key: d\n    cert: c\n# end\n", []int{1}, false, "accounts:\n  - cert: a\n    key: b\n  # two\n# end\n"},
		"the only one":        {"# a\naccounts:\n- cert: a\n  key: b\n# z\nbroker: {}\n", []int{0}, false, "# a\n# z\nbroker: {}\n"},
		"replaced":            {"accounts:\n- cert: a\n  key: b\n", []int{0}, true, "accounts:\n- cert: /c/new.pem\n  key: /c/new.key\n"},
		"a signer":            {"accounts:\n- cert: a\n  signer: [a,\n    b]\n- cert: c\n  key: d\n", []int{0}, false, "accounts:\n- cert: c\n  key: d\n"},
		"whose stands beside": {"accounts:\n- cert: a\n  id: spiffe://n/subscriber/b\n  key: b\n", nil, true, "accounts:\n- cert: a\n  id: spiffe://n/subscriber/b\n  key: b\n- cert: /c/new.pem\n  key: /c/new.key\n"},
		"windows line ends":   {"accounts:\r\n- cert: a\r\n  key: b\r\n", []int{0}, false, "\n"},
		"flow list":           {"accounts: [{cert: a, key: b}]\n", nil, true, ""},
		"flow file":           {"{accounts: []}\n", nil, true, ""},
		"key twice":           {"accounts:\n- cert: a\n  key: b\naccounts:\n- cert: a\n  key: b\n", nil, true, ""},
		"dash alone":          {"accounts:\n-\n  cert: a\n  key: b\n", []int{0}, false, ""},
		"no yaml":             {"a: [\n", nil, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := write(t, "config.yaml", tt.text)
			e := edition{remove: tt.remove}
			if tt.add {
				e.add = &added
			}
			err := newApp().editAccounts(file, e)
			got, rerr := os.ReadFile(file)
			if rerr != nil {
				t.Fatal(rerr)
			}
			switch {
			case tt.want == "" && (problem.Of(err) != problem.BadConfig || string(got) != tt.text):
				t.Errorf("got %v and %q, want a refusal and the file as it was", err, got)
			case tt.want != "" && (err != nil || strings.ReplaceAll(string(got), "\r", "") != tt.want):
				t.Errorf("got %v\n%s\nwant\n%s", err, got, tt.want)
			}
			if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("mode: got %v, %v", st.Mode(), err)
			}
			if left, err := filepath.Glob(filepath.Join(filepath.Dir(file), ".config-*")); err != nil || len(left) > 0 {
				t.Errorf("left over: %v, %v", left, err)
			}
		})
	}
}

// TestAddWhoseCertificateIsPlain writes beside a certificate whose it is.
func TestAddWhoseCertificateIsPlain(t *testing.T) {
	t.Parallel()
	file := write(t, "config.yaml", "trust: {}\n")
	k := keyPair{Cert: "/a", Signer: []string{"p", "-x: y", "#"}, ID: "spiffe://north/subscriber/alice"}
	if err := newApp().editAccounts(file, edition{add: &k}); err != nil {
		t.Fatal(err)
	}
	got, err := newApp().ownAccounts(file)
	if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], k) {
		t.Fatalf("got %+v, %v, want %+v", got, err, k)
	}
	if id, err := identityIn(got[0]); err != nil || id != k.ID {
		t.Errorf("whose it is: got %s, %v", id, err)
	}
}

// TestEditThroughALink changes the file that a link leads to, and not the link.
func TestEditThroughALink(t *testing.T) {
	t.Parallel()
	file := write(t, "config.yaml", "trust: {}\n")
	link := filepath.Join(t.TempDir(), "link.yaml")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if err := newApp().editAccounts(link, edition{add: &keyPair{Cert: "/a", Key: "/b"}}); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link: got %v, %v", st, err)
	}
	if got, err := newApp().ownAccounts(file); err != nil || len(got) != 1 {
		t.Errorf("the file: got %v, %v", got, err)
	}
}

// TestAKeyOfAnotherAccount: of several accounts the one is named whose certificate and key do not belong together.
func TestAKeyOfAnotherAccount(t *testing.T) {
	t.Parallel()
	cert, _ := certstest.New(t, "north").Issue(token.Subscriber, "alice").Files(t.TempDir())
	_, key := certstest.New(t, "south").Issue(token.Subscriber, "alice").Files(t.TempDir())
	_, err := newApp().openPair(t.Context(), keyPair{Cert: filePath(cert), Key: filePath(key)})
	if problem.Of(err) != problem.BadConfig || !strings.Contains(problem.As(err).Sentence(), cert) {
		t.Errorf("got %v, want %s to be named", err, cert)
	}
}
