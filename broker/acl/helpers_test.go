package acl_test

import (
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/token/problem"
)

// list reads a list in the form of ParseText; ';' ends a line too.
func list(tb testing.TB, text string) acl.ACL {
	tb.Helper()
	a, err := acl.ParseText(strings.ReplaceAll(text, ";", "\n"))
	if err != nil {
		tb.Fatalf("%q: %v", text, err)
	}
	return a
}

// target puts together what is asked for: its own list, then those above it. All of
// it belongs to olga and to the group staff.
func target(tb testing.TB, kind acl.Kind, lists ...string) acl.Target {
	tb.Helper()
	t := acl.Target{Kind: kind}
	for _, text := range lists {
		t.Path = append(t.Path, acl.Level{ACL: list(tb, text), Owner: "olga", Group: "staff"})
	}
	return t
}

// nobody knows of this container, so what is below it is no root.
const none = ""

func named(name acl.Who, groups ...acl.Who) acl.Principal {
	return acl.Principal{Name: name, Groups: groups}
}

func admin(name acl.Who) acl.Principal {
	return acl.Principal{Name: name, Status: acl.Administrating}
}

// refused fails unless err is a problem of code whose sentence has all of words.
func refused(tb testing.TB, err error, code problem.Code, words ...string) {
	tb.Helper()
	if problem.Of(err) != code {
		tb.Fatalf("got %v, want a problem of code %s", err, code)
	}
	sentence := problem.As(err).Sentence()
	for _, w := range append(words, ".") {
		if !strings.Contains(sentence, w) {
			tb.Errorf("got %q, want %q in it", sentence, w)
		}
	}
}

func mask(tb testing.TB, s string) acl.Mask {
	tb.Helper()
	m, err := acl.ParseMask(s)
	if err != nil {
		tb.Fatalf("%q: %v", s, err)
	}
	return m
}
