package space

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/consign-transfer/consign/token/problem"
)

// The forms that values of data system metadata have. Each read function returns
// problem.Malformed if the value is of another form, and each write function the only form that it reads.

func malformed(item Item, format string, args ...any) error {
	return problem.New(problem.Malformed, "The item "+string(item)+" "+format, args...)
}

// stringValue is s as JSON, without escapes that are for pages of HTML.
func stringValue(s string) Value {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic("space: internal error: a string has no JSON: " + err.Error())
	}
	return Value(bytes.TrimSuffix(b.Bytes(), []byte{'\n'}))
}

// readString reads any string of JSON that is plain.
func readString(item Item, v Value) (string, error) {
	var s string
	if !strings.HasPrefix(string(v), `"`) || json.Unmarshal([]byte(v), &s) != nil {
		return "", malformed(item, "is not a string; numbers and true stand between quotes.")
	}
	if !plain(s) {
		return "", malformed(item, "is not UTF-8 in normal form C without control characters.")
	}
	return s, nil
}

// readText reads a string that is not empty and not too long.
func readText(item Item, v Value) (string, error) {
	s, err := readString(item, v)
	switch {
	case err != nil:
		return "", err
	case s == "":
		return "", malformed(item, "is empty; leave it out.")
	case len(s) > MaxTextSize:
		return "", malformed(item, "is longer than %d bytes.", MaxTextSize)
	}
	return s, nil
}

// readNumber reads a whole number from least on, in its shortest decimal form.
func readNumber(least int64) func(Item, Value) (int64, error) {
	return func(item Item, v Value) (int64, error) {
		s, err := readString(item, v)
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || strconv.FormatInt(n, 10) != s || n < least || n > maxNumber {
			return 0, malformed(item, "is %s, which is not a whole number from %d on without sign, point and leading zeros.", problem.Quote(s), least)
		}
		return n, nil
	}
}

func writeNumber(n int64) Value { return stringValue(strconv.FormatInt(n, 10)) }

// readFlag reads "true", and "false" for what would be inherited otherwise.
func readFlag(item Item, v Value) (bool, error) {
	s, err := readString(item, v)
	if err != nil {
		return false, err
	}
	if s != "true" && s != "false" {
		return false, malformed(item, `is %s, not "true" or "false".`, problem.Quote(s))
	}
	return s == "true", nil
}

func writeFlag(b bool) Value { return stringValue(strconv.FormatBool(b)) }

// readStrings reads an array of strings that are plain.
func readStrings(item Item, v Value) ([]string, error) {
	var raw []json.RawMessage
	if !strings.HasPrefix(string(v), "[") || json.Unmarshal([]byte(v), &raw) != nil {
		return nil, malformed(item, "is not an array of strings.")
	}
	list := make([]string, len(raw))
	for i, r := range raw {
		s, err := readString(item, Value(r))
		if err != nil {
			return nil, err
		}
		list[i] = s
	}
	return list, nil
}

func writeStrings(list []string) Value {
	values := make([]string, len(list))
	for i, s := range list {
		values[i] = string(stringValue(s))
	}
	return Value("[" + strings.Join(values, ",") + "]")
}

// readHolds reads an array of unique strings, of which none is empty.
func readHolds(item Item, v Value) ([]string, error) {
	list, err := readStrings(item, v)
	if err != nil {
		return nil, err
	}
	if len(list) > MaxHolds {
		return nil, problem.New(problem.TooLarge, "The item %s has more than %d holds.", item, MaxHolds)
	}
	for i, s := range list {
		switch {
		case s == "" || len(s) > MaxTextSize:
			return nil, malformed(item, "has a hold of %d bytes, not 1 to %d.", len(s), MaxTextSize)
		case slices.Contains(list[:i], s):
			return nil, malformed(item, "has the hold %s twice.", problem.Quote(s))
		}
	}
	return list, nil
}

func readPlacement(item Item, v Value) (Placement, error) {
	list, err := readStrings(item, v)
	if err != nil {
		return nil, err
	}
	p, err := ParsePlacement(list)
	if err != nil {
		return nil, within(item, err)
	}
	return p, nil
}

func readInterval(item Item, v Value) (Interval, error) {
	s, err := readString(item, v)
	if err != nil {
		return Interval{}, err
	}
	i, err := ParseInterval(s)
	if err != nil {
		return Interval{}, within(item, err)
	}
	return i, nil
}

// within says in which item err was found.
func within(item Item, err error) error {
	e := problem.As(err)
	return &problem.Error{Code: e.Code, Detail: "The item " + string(item) + ": " + e.Sentence(), Remedy: e.Remedy, Cause: err}
}

// A ValueHash names a hash that the value of an object is to have, as CDMI spells it: the
// algorithm and its length in bits, with nothing between.
type ValueHash string

const (
	MD5    ValueHash = "MD5"
	SHA160 ValueHash = "SHA160" // SHA-1
	SHA256 ValueHash = "SHA256"
	SHA384 ValueHash = "SHA384"
	SHA512 ValueHash = "SHA512"
)

func readHash(item Item, v Value) (ValueHash, error) {
	s, err := readString(item, v)
	if err != nil {
		return "", err
	}
	switch h := ValueHash(s); h {
	case MD5, SHA160, SHA256, SHA384, SHA512:
		return h, nil
	}
	return "", malformed(item, "is %s, not SHA256, SHA384, SHA512, SHA160 or MD5.", problem.Quote(s))
}

// A Cipher is how an object is to be encrypted at rest, as CDMI spells it: algorithm,
// mode and length of the key in bits, such as AES_XTS_256.
type Cipher string

// keyLengths are those of the algorithms that the standard names, in bits.
var keyLengths = map[string][]string{"AES": {"128", "192", "256"}, "3DES": {"112", "168"}}

func readCipher(item Item, v Value) (Cipher, error) {
	s, err := readString(item, v)
	if err != nil {
		return "", err
	}
	parts := strings.Split(s, "_")
	if len(parts) != 3 || parts[1] == "" || strings.Trim(parts[1], "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" || !slices.Contains(keyLengths[parts[0]], parts[2]) {
		return "", malformed(item, "is %s, not AES or 3DES, mode and length of the key in bits, such as AES_XTS_256.", problem.Quote(s))
	}
	return Cipher(s), nil
}
