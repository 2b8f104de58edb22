package token

import "github.com/consign-transfer/consign/token/problem"

// checkSession reports whether o can be had on the word of a broker alone: problem.Malformed for a standing order, and for one to
// withdraw another. Both act long after the session in which the account was seen.
func (o Order) checkSession() error {
	if o.Standing() || o.Do == Withdraw {
		return problem.New(problem.Malformed, "An order that nobody signed can neither be a standing one nor withdraw another.")
	}
	return nil
}

// SessionOrder returns o as the word of the broker whose capability key this is: an account of o has shown its certificate, could not
// sign, and asked for o. It has the payload of the order, and never passes for one that an account signed. It fails as Order.Payload does, with
// problem.Malformed for an order that cannot be had so, and with problem.UnknownKey if the key is neither Ed25519 nor P-256.
func (s Signer) SessionOrder(o Order) (string, error) {
	if err := o.checkSession(); err != nil {
		return "", err
	}
	return sign(s, sessionOrderKind, o)
}

// VerifySessionOrder returns the order in tok if a key of keys signed it that is pinned to the broker iss. It fails as VerifyOrder does, and with
// problem.UnknownBroker if the key belongs to another broker. Whether the word of iss is good for it is for local policy to say.
func VerifySessionOrder(tok string, keys KeySet, iss Identity) (Verified[Order], error) {
	v, err := verify[Order](tok, sessionOrderKind, keys.find)
	if err != nil {
		return Verified[Order]{}, err
	}
	if err := keys.pinned(sessionOrderKind, v.KeyID, iss); err != nil {
		return Verified[Order]{}, err
	}
	if err := v.Claims.checkSession(); err != nil {
		return Verified[Order]{}, err
	}
	return v, nil
}
