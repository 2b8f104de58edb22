package signer

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
)

// FuzzAnswer: whatever a signer writes, what is taken for an answer is exactly one thing.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"v":1,"id":1,"key":"AQ==","label":"x"}`, `{"v":1,"id":2,"signature":"AQ=="}`, `{"v":1,"id":3,"error":"no"}`,
		`{"v":1,"id":1,"key":"AQ==","error":"no"}`, `{"v":2,"id":1,"key":"AQ=="}`, `{"v":1}{}`, `[]`, "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		a, err := parseAnswer(line)
		things := 0
		for _, there := range []bool{len(a.Key) > 0, len(a.Signature) > 0, a.Error != ""} {
			if there {
				things++
			}
		}
		if err == nil && (a.V != Version || things != 1) || err != nil && (things != 0 || a.V != 0) {
			t.Fatalf("%q: got %+v, %v", line, a, err)
		}
		if s := sentence(a.Error); len(s) > maxSentence || strings.ContainsAny(s, "\n\x1b\x00") {
			t.Fatalf("%q: got the sentence %q", line, s)
		}
	})
}

// FuzzServe: whatever it is asked, the reference signs digests and nothing else, and each signature is good.
func FuzzServe(f *testing.F) {
	d := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, seed := range []string{
		`{"v":1,"id":1,"do":"key"}` + "\n", `{"v":1,"id":1,"do":"sign","alg":"ecdsa-sha256","digest":"` + d + `"}` + "\n",
		`{"v":1,"id":1,"do":"sign","alg":"ed25519","message":"eA=="}` + "\n", "{}\n{}\n", "\n", "x",
	} {
		f.Add([]byte(seed))
	}
	key, err := ecdsaKey()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		_ = Serve(bytes.NewReader(in), &out, key, "") // an end with an error is as good
		asked := bytes.Split(in, []byte("\n"))
		for i, line := range bytes.Split(bytes.TrimSuffix(out.Bytes(), []byte("\n")), []byte("\n")) {
			if len(line) == 0 {
				continue
			}
			a, err := parseAnswer(line)
			if err != nil {
				t.Fatalf("answered %q: %v", line, err)
			}
			if len(a.Signature) == 0 {
				continue
			}
			var q request
			if err := json.Unmarshal(asked[i], &q); err != nil || len(q.Digest) != 32 || !ecdsa.VerifyASN1(&key.PublicKey, q.Digest, a.Signature) {
				t.Fatalf("signed for %q: %v", asked[i], err)
			}
		}
	})
}
