package certs

import (
	"bytes"
	"math/big"
	"strings"
	"unicode/utf8"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// MaxDenied bounds the entries of a deny list.
const MaxDenied = 10_000

// A denied is an operator's own list of whom he refuses, whatever their authority says. It is never changed; nil is nobody.
type denied struct {
	ids     map[token.Identity]bool
	serials map[token.Provider]map[string]bool // by the bytes of the number
}

// parseDenied reads a deny list: one entry a line, in its one spelling, each once.
//
//	identity spiffe://north/agent/one
//	serial north 5f3a9c
//
// A serial number is that of a leaf or of an authority above it, in lower-case hexadecimal digits without leading zeros. Empty
// lines, and lines that begin with #, are left out.
func parseDenied(data []byte) (*denied, error) {
	d := &denied{ids: map[token.Identity]bool{}, serials: map[token.Provider]map[string]bool{}}
	if !utf8.Valid(data) {
		return nil, problem.New(problem.Malformed, "It is not text.")
	}
	n := 0
	for i, line := range bytes.Split(data, []byte("\n")) {
		text := string(line)
		if text == "" || text[0] == '#' {
			continue
		}
		if n++; n > MaxDenied {
			return nil, problem.New(problem.TooLarge, "It has more than %d entries.", MaxDenied)
		}
		if err := d.add(strings.Split(text, " ")); err != nil {
			return nil, problem.Wrap(err, problem.Malformed, "Line %d: %s", i+1, problem.As(err).Sentence())
		}
	}
	return d, nil
}

func (d *denied) add(words []string) error {
	switch {
	case len(words) == 2 && words[0] == "identity":
		id, err := token.ParseIdentity(words[1])
		if err != nil {
			return problem.New(problem.Malformed, "The identity is not of the form spiffe://provider/role/name.")
		}
		if d.ids[id] {
			return problem.New(problem.Malformed, "The identity is already there.")
		}
		d.ids[id] = true
		return nil
	case len(words) == 3 && words[0] == "serial":
		p := token.Provider(words[1])
		if err := token.CheckProvider(p); err != nil {
			return problem.New(problem.Malformed, "What stands before the serial number is not the name of a provider.")
		}
		n, ok := new(big.Int).SetString(words[2], 16)
		if !ok || n.Sign() < 0 || n.Text(16) != words[2] {
			return problem.New(problem.Malformed, "The serial number is not written in lower-case hexadecimal digits without leading zeros.")
		}
		if d.serials[p] == nil {
			d.serials[p] = map[string]bool{}
		}
		if d.serials[p][string(n.Bytes())] {
			return problem.New(problem.Malformed, "The serial number is already there.")
		}
		d.serials[p][string(n.Bytes())] = true
		return nil
	}
	return problem.New(problem.Malformed, "It is neither 'identity ID' nor 'serial PROVIDER NUMBER'.")
}

// identity returns problem.IDDenied if that identity is denied.
func (d *denied) identity(id token.Identity) error {
	if d == nil || !d.ids[id] {
		return nil
	}
	return problem.New(problem.IDDenied, "The operator has denied %s.", id)
}

// path returns problem.IDDenied if a certificate of the path, which is of p, is denied.
func (d *denied) path(p token.Provider, path Chain, subject string) error {
	if d == nil {
		return nil
	}
	for i, c := range path {
		if d.serials[p][string(c.SerialNumber.Bytes())] {
			return problem.New(problem.IDDenied, "%s (serial %s) was denied by the operator.", above(subject, i), serial(c))
		}
	}
	return nil
}
