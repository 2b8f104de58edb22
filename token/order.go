package token

import (
	"slices"
	"strings"
	"time"

	"github.com/consign-transfer/consign/token/problem"
)

// MaxOrderLife bounds exp - iat of an order.
const MaxOrderLife = 400 * 24 * time.Hour

// Check reports why o is not well formed, or nil: problem.Malformed, BadName or
// TooLarge. It knows nothing of time, keys and policy. docs/spec/order.md lists the rules.
func (o Order) Check() error {
	if _, err := ParseTransferID(string(o.ID)); err != nil {
		return err
	}
	if err := o.checkSpan(); err != nil {
		return err
	}
	if err := o.checkVerb(); err != nil {
		return err
	}
	if err := o.checkStanding(); err != nil {
		return err
	}
	if err := o.checkTarget(); err != nil {
		return err
	}
	if err := o.checkAccounts(); err != nil {
		return err
	}
	if err := o.checkLimits(); err != nil {
		return err
	}
	return o.checkFilters()
}

func (o Order) checkSpan() error {
	switch {
	case o.Iat <= 0 || o.Iat > maxInteger || o.Exp > maxInteger:
		return problem.New(problem.Malformed, "The order's iat and exp are not seconds since 1970.")
	case o.Exp <= o.Iat:
		return problem.New(problem.Malformed, "The order ends before it begins.")
	case o.Exp-o.Iat > int64(MaxOrderLife/time.Second):
		return problem.New(problem.Malformed, "The order lives longer than 400 days.")
	}
	return nil
}

// verbRule is what an order of one verb must look like.
type verbRule struct {
	from, to bool // which locations it names; the other is zero
	scopes   []Scope
}

func ruleOf(do Verb) (verbRule, bool) {
	switch do {
	case Copy:
		return verbRule{from: true, to: true, scopes: []Scope{One, Tree}}, true
	case List:
		return verbRule{from: true, scopes: []Scope{Tree}}, true
	case Stat:
		return verbRule{from: true, scopes: []Scope{One}}, true
	case Make:
		return verbRule{to: true, scopes: []Scope{One}}, true
	case Erase:
		return verbRule{to: true, scopes: []Scope{One}}, true
	case Withdraw:
		return verbRule{scopes: []Scope{""}}, true
	}
	return verbRule{}, false
}

func (o Order) checkVerb() error {
	rule, ok := ruleOf(o.Do)
	if !ok {
		return problem.New(problem.Malformed, "The order's verb %s does not exist.", problem.Quote(string(o.Do)))
	}
	if !slices.Contains(rule.scopes, o.Scope) {
		return problem.New(problem.Malformed, "An order to %s cannot have the scope %s.", o.Do, problem.Quote(string(o.Scope)))
	}
	if err := checkRoot("from", o.From, rule.from); err != nil {
		return err
	}
	if err := checkRoot("to", o.To, rule.to); err != nil {
		return err
	}
	if err := o.checkVersion(); err != nil {
		return err
	}
	if o.Do != Copy {
		if o.IfExists != "" || o.Digest != "" {
			return problem.New(problem.Malformed, "An order to %s has no if_exists and no digest.", o.Do)
		}
		return nil
	}
	if o.IfExists != Fail && o.IfExists != Skip && o.IfExists != Compare {
		return problem.New(problem.Malformed, "The order's if_exists is %s, not fail, skip or verify.", problem.Quote(string(o.IfExists)))
	}
	if o.Scope == One && (o.From.Name == "" || o.To.Name == "") {
		return problem.New(problem.BadName, "An order to copy one object must name it at both ends.")
	}
	if o.Scope == Tree && o.Digest != "" {
		return problem.New(problem.Malformed, "Only an order of one object has a digest.")
	}
	if o.Scope == Tree && o.To.inside(o.From) {
		return problem.New(problem.Malformed, "The destination of the order lies inside its source: the copies would be copied again.")
	}
	return o.Digest.Check()
}

// checkVersion checks which state an order to erase is about. A whole container that an agent exports is not erased.
func (o Order) checkVersion() error {
	switch {
	case o.Do != Erase && o.Version != "":
		return problem.New(problem.Malformed, "An order to %s has no version.", o.Do)
	case o.Do == Erase && o.To.Name == "":
		return problem.New(problem.BadName, "An order to erase must name what is below the container; the container itself is the provider's.")
	}
	return checkText("order's version", string(o.Version), MaxVersionSize)
}

// inside reports whether l is below m, by name.
func (l Location) inside(m Location) bool {
	if l.Provider != m.Provider || l.Container != m.Container {
		return false
	}
	return m.Name == "" && l.Name != "" || m.Name != "" && strings.HasPrefix(string(l.Name), string(m.Name)+"/")
}

func checkRoot(claim string, l Location, wanted bool) error {
	if wanted {
		return l.Check()
	}
	if l != (Location{}) {
		return problem.New(problem.Malformed, "An order of this verb has no %q.", claim)
	}
	return nil
}

// checkAccounts wants exactly one account a provider that the order touches, and one alone to withdraw: any account
// of the target may, and which those are is not known here.
func (o Order) checkAccounts() error {
	if o.Do == Withdraw {
		if len(o.Accounts) != 1 {
			return problem.New(problem.Malformed, "An order to withdraw is of one account, not of %d.", len(o.Accounts))
		}
		return checkRole("accounts", o.Accounts[0], Subscriber)
	}
	want := make(map[Provider]bool, 2)
	for _, l := range []Location{o.From, o.To} {
		if l != (Location{}) {
			want[l.Provider] = true
		}
	}
	if len(o.Accounts) != len(want) {
		return problem.New(problem.Malformed, "The order names %d accounts, but has to do with %d providers.", len(o.Accounts), len(want))
	}
	for i, a := range o.Accounts {
		if err := checkRole("accounts", a, Subscriber); err != nil {
			return err
		}
		if !want[a.Provider()] {
			return problem.New(problem.Malformed, "The account %s is not at a provider that the order names, or is the second one there.", problem.Quote(string(a)))
		}
		delete(want, a.Provider())
		if i > 0 && o.Accounts[i-1] >= a {
			return problem.New(problem.Malformed, "The order's accounts are not sorted.")
		}
	}
	return nil
}

func (o Order) checkLimits() error {
	l := o.Limits
	switch {
	case l.Bytes < 0 || l.Items < 0 || l.Rate < 0:
		return problem.New(problem.Malformed, "A limit of the order is negative.")
	case o.Do != Copy && (l.Bytes != 0 || l.Rate != 0), o.Do != Copy && o.Do != List && l.Items != 0:
		return problem.New(problem.Malformed, "An order to %s cannot have this limit.", o.Do)
	}
	return nil
}

func (o Order) checkFilters() error {
	if len(o.Filters) > MaxFilters {
		return problem.New(problem.TooLarge, "The order has more than %d filters.", MaxFilters)
	}
	if len(o.Filters) > 0 && o.Do != Copy && o.Do != List {
		return problem.New(problem.Malformed, "An order to %s has no filters.", o.Do)
	}
	for _, f := range o.Filters {
		if err := f.Check(); err != nil {
			return err
		}
	}
	return nil
}

// CheckTime reports whether o may be acted upon at now: nil; problem.OrderExpired
// from exp on, without grace; problem.OrderNotYet if it was signed more than
// ClockSkew after now.
func (o Order) CheckTime(now time.Time) error {
	if now.Unix() >= o.Exp {
		return problem.New(problem.OrderExpired, "The order ended at %s.", clock(o.Exp))
	}
	if o.Iat > now.Add(ClockSkew).Unix() {
		return problem.New(problem.OrderNotYet, "The order was signed at %s, which has not come yet.", clock(o.Iat))
	}
	return nil
}

func clock(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(time.RFC3339) }

// Account returns the account that o names at p, and whether it names one.
func (o Order) Account(p Provider) (Identity, bool) {
	for _, a := range o.Accounts {
		if a.Provider() == p {
			return a, true
		}
	}
	return "", false
}

// Selects reports whether an order to copy, list or stat covers the source name
// src: nil, problem.BadName, or problem.OrderNotCovered if src is not below the
// source root or a filter excludes it. o must have passed Check.
func (o Order) Selects(src ObjectName) error {
	_, err := o.suffix(src)
	return err
}

// suffix returns what remains of src below the source root; "" for scope One.
func (o Order) suffix(src ObjectName) (ObjectName, error) {
	if err := CheckName(src); err != nil {
		return "", err
	}
	if rule, ok := ruleOf(o.Do); !ok || !rule.from {
		return "", problem.New(problem.OrderNotCovered, "The order has no source.")
	}
	rest, subject := ObjectName(""), string(src)
	switch {
	case o.Scope == One && src == o.From.Name:
		subject = subject[strings.LastIndexByte(subject, '/')+1:]
	case o.Scope == Tree && o.From.Name == "":
		rest = src
	case o.Scope == Tree && strings.HasPrefix(string(src), string(o.From.Name)+"/"):
		rest = src[len(o.From.Name)+1:]
		subject = string(rest)
	default:
		return "", problem.New(problem.OrderNotCovered, "The object %s is not below the source of the order.", problem.Quote(string(src)))
	}
	if !included(o.Filters, subject) {
		return "", problem.New(problem.OrderNotCovered, "The object %s is excluded by a filter of the order.", problem.Quote(string(src)))
	}
	return rest, nil
}

// Destination returns the name that an order to copy gives to the source object
// src. It is the only mapping from an order to names: planner and both agents
// call it. Outcomes: the name, which CheckName accepts; problem.OrderNotCovered if
// src is not below the source root, is excluded by a filter, or o does not copy;
// problem.BadName if src, or the name that it would get, is not allowed. o must have passed Check.
func (o Order) Destination(src ObjectName) (ObjectName, error) {
	if o.Do != Copy {
		return "", problem.New(problem.OrderNotCovered, "The order is not one to copy.")
	}
	rest, err := o.suffix(src)
	if err != nil {
		return "", err
	}
	dst := o.To.Name
	switch {
	case o.Scope == One:
	case dst == "":
		dst = rest
	default:
		dst += "/" + rest
	}
	if err := CheckName(dst); err != nil {
		return "", err
	}
	return dst, nil
}

// Covers reports whether o wants exactly this item: nil; problem.OrderNotCovered
// if Destination gives its source another name, its digest is not the one that o
// demands, or it is larger than o's limit of bytes; or the failure of Destination.
// The limits over all items of a transfer are for the caller to count.
func (o Order) Covers(it Item) error {
	dst, err := o.Destination(it.Src)
	if err != nil {
		return err
	}
	switch {
	case dst != it.Dst:
		return problem.New(problem.OrderNotCovered, "The order does not give the object %s the name %s.", problem.Quote(string(it.Src)), problem.Quote(string(it.Dst)))
	case o.Digest != "" && it.Digest != o.Digest:
		return problem.New(problem.OrderNotCovered, "The order demands another digest of the object %s.", problem.Quote(string(it.Src)))
	case it.Size < 0 || o.Limits.Bytes > 0 && it.Size > o.Limits.Bytes:
		return problem.New(problem.OrderNotCovered, "The object %s is larger than the order allows.", problem.Quote(string(it.Src)))
	}
	return nil
}
