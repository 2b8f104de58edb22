package tokentest

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"iter"
	"strings"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Forgery is a token that must be refused.
type Forgery struct {
	Class string // of the attack; one of some dozens
	Name  string // of this attempt
	Token string
	Want  problem.Code // what it must be refused with, or "" if the place decides
}

// A Forger makes forgeries of one good token.
type Forger struct {
	Key   Key    // that signed Token
	Token string // good
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// All yields every forgery, in the same order each time.
func (f Forger) All() iter.Seq[Forgery] {
	return func(yield func(Forgery) bool) {
		for _, seq := range []iter.Seq[Forgery]{f.Claims(), f.Headers(), f.Spellings(), f.Bytes()} {
			for x := range seq {
				if !yield(x) {
					return
				}
			}
		}
	}
}

func (f Forger) parts() (header, payload, sig string) {
	p := strings.Split(f.Token, ".")
	return decode(p[0]), decode(p[1]), p[2]
}

// Claims yields tokens whose payload was changed: by somebody who has not the key
// and keeps the old signature, and by the holder of the key, who signs anew what
// is no statement of that kind.
func (f Forger) Claims() iter.Seq[Forgery] {
	return func(yield func(Forgery) bool) {
		header, payload, sig := f.parts()
		for _, m := range mutate(payload) {
			unsigned := encode(header) + "." + encode(m.text) + "." + sig
			if !yield(Forgery{"unsigned " + m.class, m.name, unsigned, problem.BadSignature}) {
				return
			}
			if m.valid {
				continue
			}
			if !yield(Forgery{"signed " + m.class, m.name, f.Key.Sign(header, m.text), m.want}) {
				return
			}
		}
	}
}

// mutation is a changed JSON object.
type mutation struct {
	class, name, text string
	want              problem.Code
	valid             bool // well formed, if only it were signed
}

// member is one member of a JSON object, its value as it was written.
type member struct {
	name  string
	value json.RawMessage
}

func members(object string) []member {
	dec := json.NewDecoder(strings.NewReader(object))
	_, err := dec.Token()
	must(err)
	var out []member
	for dec.More() {
		name, err := dec.Token()
		must(err)
		var v json.RawMessage
		must(dec.Decode(&v))
		out = append(out, member{name.(string), v})
	}
	return out
}

func join(ms []member) string {
	var b strings.Builder
	for i, m := range ms {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:%s", m.name, m.value)
	}
	return "{" + b.String() + "}"
}

// mutate yields the object with each member removed, doubled, renamed, moved and
// retyped, and the object as a whole in other spellings.
func mutate(object string) []mutation {
	ms := members(object)
	var out []mutation
	add := func(class, name, text string, want problem.Code) {
		out = append(out, mutation{class, name, text, want, false})
	}
	with := func(i int, m ...member) string {
		return join(append(append(append([]member(nil), ms[:i]...), m...), ms[i+1:]...))
	}
	for i, m := range ms {
		add("claim removed", m.name, with(i), problem.NotCanonical)
		add("claim doubled", m.name, with(i, m, m), problem.Malformed)
		add("claim doubled in upper case", m.name, with(i, m, member{strings.ToUpper(m.name), m.value}), problem.NotCanonical)
		add("claim in upper case", m.name, with(i, member{strings.ToUpper(m.name), m.value}), problem.NotCanonical)
		add("claim in mixed case", m.name, with(i, member{strings.ToUpper(m.name[:1]) + m.name[1:], m.value}), problem.NotCanonical)
		add("unknown claim", m.name, with(i, m, member{m.name + "_", m.value}), problem.UnknownField)
		add("claim null", m.name, with(i, member{m.name, []byte("null")}), problem.NotCanonical)
		add("space", m.name, with(i, member{m.name, append([]byte(" "), m.value...)}), problem.NotCanonical)
		if i > 0 {
			add("claims reordered", m.name, join(append(append(append([]member(nil), ms[:i-1]...), m, ms[i-1]), ms[i+1:]...)), problem.NotCanonical)
		}
		for _, v := range retyped(m.value) {
			add("claim retyped", m.name+"="+v.text, with(i, member{m.name, []byte(v.text)}), v.want)
		}
		if v, ok := changed(m.value); ok {
			out = append(out, mutation{"claim changed", m.name, with(i, member{m.name, v}), "", true})
		}
	}
	for _, s := range []struct {
		name, text string
		want       problem.Code
	}{
		{"object twice", object + object, problem.Malformed}, {"trailing text", object + "x", problem.Malformed},
		{"trailing new line", object + "\n", problem.NotCanonical}, {"leading space", " " + object, problem.NotCanonical},
		{"byte order mark", "\ufeff" + object, problem.Malformed}, {"trailing NUL", object + "\x00", problem.Malformed},
		{"in a list", "[" + object + "]", problem.Malformed}, {"null", "null", problem.NotCanonical},
		{"empty object", "{}", problem.NotCanonical}, {"cut", object[:len(object)-1], problem.Malformed},
		{"nested", `{"a":` + strings.Repeat("[", 900) + strings.Repeat("]", 900) + "}", problem.UnknownField},
		{"prototype", `{"__proto__":{},` + object[1:], problem.UnknownField},
	} {
		add(s.name, s.name, s.text, s.want)
	}
	return out
}

type spelling struct {
	text string
	want problem.Code
}

// retyped returns values of other types, and other spellings of the same value.
func retyped(value json.RawMessage) []spelling {
	v := string(value)
	bad := func(texts ...string) (out []spelling) {
		for _, t := range texts {
			out = append(out, spelling{t, problem.Malformed})
		}
		return out
	}
	switch v[0] {
	case '"':
		out := bad("1", "true", "[]", "{}", "["+v+"]")
		if len(v) > 2 && v[1] < 0x80 && v[1] != '\\' {
			out = append(out, spelling{fmt.Sprintf(`"\u%04x%s`, v[1], v[2:]), problem.NotCanonical})
		}
		return out
	case '[':
		return bad("1", `""`, "{}", "true")
	case '{':
		return bad("1", `""`, "[]", "true")
	case 't', 'f':
		return bad("1", `"`+v+`"`, "[]")
	}
	return bad(`"`+v+`"`, "true", "[]", v+".0", v+"e0", "0"+v, "+"+v, "1e400", "9223372036854775808", "99999999999999999999999")
}

// changed returns another value of the same type.
func changed(value json.RawMessage) (json.RawMessage, bool) {
	v := string(value)
	switch {
	case v == "true":
		return []byte("false"), true
	case v == "false":
		return []byte("true"), true
	case len(v) > 2 && v[0] == '"':
		last := byte('a')
		if v[len(v)-2] == 'a' {
			last = 'b'
		}
		return []byte(v[:len(v)-2] + string(last) + `"`), true
	case v[0] >= '0' && v[0] <= '9':
		return []byte("1" + v), true
	}
	return nil, false
}

// Headers yields tokens with another header, once with the old signature and once
// signed anew by the holder of the key.
func (f Forger) Headers() iter.Seq[Forgery] {
	return func(yield func(Forgery) bool) {
		header, payload, sig := f.parts()
		for _, m := range f.headers(header) {
			for _, x := range []Forgery{
				{"header: " + m.class, m.name, encode(m.text) + "." + encode(payload) + "." + sig, m.want},
				{"signed header: " + m.class, m.name, f.Key.Sign(m.text, payload), m.want},
			} {
				if !yield(x) {
					return
				}
			}
		}
		for name, secret := range f.publicBytes() {
			forged := strings.Replace(header, `"alg":"`+f.Key.Alg, `"alg":"HS256`, 1)
			signed := encode(forged) + "." + encode(payload)
			mac := hmac.New(sha256.New, secret)
			mac.Write([]byte(signed))
			tok := signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
			if !yield(Forgery{"HS256 with the public key", name, tok, problem.BadSignature}) {
				return
			}
		}
	}
}

// publicBytes yields what an attacker may take for a shared secret.
func (f Forger) publicBytes() iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		der, err := x509.MarshalPKIXPublicKey(f.Key.Signer.Public())
		must(err)
		text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
		kid, err := token.KeyID(f.Key.Signer.Public())
		must(err)
		_ = yield("DER", der) && yield("PEM", text) && yield("raw", der[len(der)-32:]) && yield("kid", []byte(kid)) && yield("empty", nil)
	}
}

func (f Forger) headers(header string) []mutation {
	ms := members(header) // alg, kid, typ
	var out []mutation
	for _, m := range mutate(header) {
		if !m.valid {
			out = append(out, m)
		}
	}
	set := func(i int, class, value string, want problem.Code) {
		n := append([]member(nil), ms...)
		n[i].value = []byte(fmt.Sprintf("%q", value))
		out = append(out, mutation{class, value, join(n), want, false})
	}
	for _, alg := range []string{"none", "None", "NONE", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384",
		"PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "eddsa", "ML-DSA-44", ""} {
		if alg != f.Key.Alg {
			set(0, "alg", alg, problem.BadSignature)
		}
	}
	other, err := token.KeyID(Ed25519("stranger").Signer.Public())
	must(err)
	for _, kid := range []string{other, "", "0", "../../etc/passwd", "' OR 1=1 --", strings.Repeat("A", 43)} {
		set(1, "kid", kid, problem.UnknownKey)
	}
	for _, typ := range []string{"consign-order+jwt", "consign-session-order+jwt", "consign-capability+jwt", "consign-receipt+jwt", "consign-revocation+jwt",
		"consign-attestation+jwt", "JWT", "jwt", "", "application/consign-order+jwt", "CONSIGN-ORDER+JWT"} {
		if fmt.Sprintf("%q", typ) != string(ms[2].value) {
			set(2, "typ", typ, problem.WrongStatement)
		}
	}
	for _, extra := range []string{`"b64":false`, `"crit":["b64"]`, `"crit":["exp"]`, `"cty":"JWT"`, `"enc":"A128GCM"`, `"jku":"https://evil.example/jwks"`,
		`"jwk":{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`, `"nonce":"x"`, `"url":"https://evil.example"`,
		`"x5c":["MIIB"]`, `"x5t#S256":"x"`, `"x5u":"https://evil.example/cert"`, `"zip":"DEF"`, `"iat":1`, `"unknown":{}`} {
		out = append(out, mutation{"member added", extra, header[:len(header)-1] + "," + extra + "}", problem.UnknownField, false})
	}
	return out
}
