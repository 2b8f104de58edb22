package space_test

import (
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token/problem"
)

// refused fails unless err is a problem of code whose sentence has all of words.
func refused(tb testing.TB, err error, code problem.Code, words ...string) {
	tb.Helper()
	if problem.Of(err) != code {
		tb.Fatalf("got %v, want a problem of code %s", err, code)
	}
	e := problem.As(err)
	for _, w := range append(words, ".") {
		if !strings.Contains(e.Sentence(), w) {
			tb.Errorf("got %q, want %q in it", e.Sentence(), w)
		}
	}
	if e.Advice() == "" {
		tb.Errorf("%q has no remedy", e.Sentence())
	}
}

// settings reads data system metadata of a container from JSON.
func settings(tb testing.TB, json string) space.Settings {
	tb.Helper()
	m, err := space.ParseMetadata([]byte(json))
	if err != nil {
		tb.Fatalf("%s: %v", json, err)
	}
	s, err := space.ParseSettings(acl.Container, m)
	if err != nil {
		tb.Fatalf("%s: %v", json, err)
	}
	return s
}

func at(tb testing.TB, s string) time.Time {
	tb.Helper()
	t, err := space.ParseTime(s)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}
