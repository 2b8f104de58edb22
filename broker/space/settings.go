package space

import (
	"maps"
	"slices"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/token/problem"
)

// The data system metadata of CDMI's chapter 16.
const (
	DataRedundancy           Item = "cdmi_data_redundancy"
	ImmediateRedundancy      Item = "cdmi_immediate_redundancy"
	AssignedSize             Item = "cdmi_assignedsize"
	InfrastructureRedundancy Item = "cdmi_infrastructure_redundancy"
	DataDispersion           Item = "cdmi_data_dispersion"
	GeographicPlacement      Item = "cdmi_geographic_placement"
	RetentionID              Item = "cdmi_retention_id"
	RetentionPeriod          Item = "cdmi_retention_period"
	RetentionAutodelete      Item = "cdmi_retention_autodelete"
	HoldID                   Item = "cdmi_hold_id"
	Encryption               Item = "cdmi_encryption"
	Hash                     Item = "cdmi_value_hash"
	Latency                  Item = "cdmi_latency"
	Throughput               Item = "cdmi_throughput"
	SanitizationMethod       Item = "cdmi_sanitization_method"
	RPO                      Item = "cdmi_RPO"
	RTO                      Item = "cdmi_RTO"
)

// Settings are data system metadata: what a subscriber wishes of how an object is
// kept. Ask Has before a field: its zero value says nothing. Who gets Settings must not
// change what its slices hold.
type Settings struct {
	has uint32 // bit n: the item of the n-th rule is there

	Copies          int64     // DataRedundancy: complete copies, at least
	AtOnce          bool      // ImmediateRedundancy: all of them before an operation completes
	Size            int64     // AssignedSize: bytes; of a container, and not inherited
	Infrastructures int64     // InfrastructureRedundancy: that many separate ones
	Kilometres      int64     // DataDispersion: between those, at least
	Placement       Placement // GeographicPlacement
	RetentionTag    string    // RetentionID: a mark for searching, of no effect
	Retention       Interval  // RetentionPeriod
	Autodelete      bool      // RetentionAutodelete: erase when retention is over
	Holds           []string  // HoldID: in force if there is one
	Cipher          Cipher    // Encryption
	Hash            ValueHash // Hash
	Milliseconds    int64     // Latency: to the first byte, at most
	Rate            int64     // Throughput: bytes per second on retrieval, at most
	Sanitization    string    // SanitizationMethod: one of what the store offers
	RPOSeconds      int64     // RPO: of changes that may be lost, at most
	RTOSeconds      int64     // RTO: to restore, at most
}

// A rule is how one item is read, written and handed down.
type rule struct {
	item     Item
	provided bool // there is an item that says what of the wish is true
	own      bool // of containers alone, and not inherited
	read     func(*Settings, Value) error
	write    func(*Settings) Value
	take     func(to, from *Settings)
}

// field is the rule of an item that is kept at one field of Settings.
func field[T any](item Item, at func(*Settings) *T, read func(Item, Value) (T, error), write func(T) Value) rule {
	return rule{
		item:     item,
		provided: true,
		read: func(s *Settings, v Value) error {
			value, err := read(item, v)
			if err == nil {
				*at(s) = value
			}
			return err
		},
		write: func(s *Settings) Value { return write(*at(s)) },
		take:  func(to, from *Settings) { *at(to) = *at(from) },
	}
}

// table is every item, in the order of the standard. It is never changed.
var table = rules()

func rules() []rule {
	all := []rule{
		field(DataRedundancy, func(s *Settings) *int64 { return &s.Copies }, readNumber(1), writeNumber),
		field(ImmediateRedundancy, func(s *Settings) *bool { return &s.AtOnce }, readFlag, writeFlag),
		field(AssignedSize, func(s *Settings) *int64 { return &s.Size }, readNumber(0), writeNumber),
		field(InfrastructureRedundancy, func(s *Settings) *int64 { return &s.Infrastructures }, readNumber(1), writeNumber),
		field(DataDispersion, func(s *Settings) *int64 { return &s.Kilometres }, readNumber(1), writeNumber),
		field(GeographicPlacement, func(s *Settings) *Placement { return &s.Placement }, readPlacement, func(p Placement) Value { return writeStrings(p) }),
		field(RetentionID, func(s *Settings) *string { return &s.RetentionTag }, readText, stringValue),
		field(RetentionPeriod, func(s *Settings) *Interval { return &s.Retention }, readInterval, func(v Interval) Value { return stringValue(v.String()) }),
		field(RetentionAutodelete, func(s *Settings) *bool { return &s.Autodelete }, readFlag, writeFlag),
		field(HoldID, func(s *Settings) *[]string { return &s.Holds }, readHolds, writeStrings),
		field(Encryption, func(s *Settings) *Cipher { return &s.Cipher }, readCipher, func(c Cipher) Value { return stringValue(string(c)) }),
		field(Hash, func(s *Settings) *ValueHash { return &s.Hash }, readHash, func(h ValueHash) Value { return stringValue(string(h)) }),
		field(Latency, func(s *Settings) *int64 { return &s.Milliseconds }, readNumber(1), writeNumber),
		field(Throughput, func(s *Settings) *int64 { return &s.Rate }, readNumber(1), writeNumber),
		field(SanitizationMethod, func(s *Settings) *string { return &s.Sanitization }, readText, stringValue),
		field(RPO, func(s *Settings) *int64 { return &s.RPOSeconds }, readNumber(0), writeNumber),
		field(RTO, func(s *Settings) *int64 { return &s.RTOSeconds }, readNumber(0), writeNumber),
	}
	for i := range all {
		switch all[i].item {
		case AssignedSize:
			all[i].own, all[i].provided = true, false
		case RetentionID:
			all[i].provided = false
		}
	}
	return all
}

// indexOf returns the place of item in the table, or -1.
func indexOf(item Item) int {
	return slices.IndexFunc(table, func(r rule) bool { return r.item == item })
}

func ruleOf(item Item) *rule {
	if i := indexOf(item); i >= 0 {
		return &table[i]
	}
	return nil
}

// Has reports whether the wish item is there, be it also for nothing.
func (s Settings) Has(item Item) bool {
	i := indexOf(item)
	return i >= 0 && s.has>>i&1 == 1
}

// ParseSettings reads data system metadata of something of kind k. It fails with problem.Malformed or
// TooLarge, naming the item, if a value has not the form that the standard gives it or only a container may have
// it, and with problem.UnknownField if an item is none of data system metadata.
func ParseSettings(k acl.Kind, m Metadata) (Settings, error) {
	var s Settings
	for _, item := range slices.Sorted(maps.Keys(m)) {
		i := indexOf(item)
		switch {
		case i < 0:
			return Settings{}, problem.New(problem.UnknownField, "The item %s is not data system metadata of CDMI.", problem.Quote(string(item)))
		case table[i].own && k != acl.Container:
			return Settings{}, malformed(item, "belongs to containers alone.")
		}
		if err := table[i].read(&s, m[item]); err != nil {
			return Settings{}, err
		}
		s.has |= 1 << i
	}
	return s, nil
}

// Metadata returns what s says as items, in the form that ParseSettings reads.
func (s Settings) Metadata() Metadata {
	m := Metadata{}
	for i, r := range table {
		if s.has>>i&1 == 1 {
			m[r.item] = r.write(&s)
		}
	}
	return m
}

// Inherit returns what is in force for something with the wishes own, in a container for which
// above is in force: each item is its own, else that from above. Two items are not so: AssignedSize is
// not inherited, and holds add up, so that nobody leaves a hold by having one of their own.
func Inherit(above, own Settings) Settings {
	s := own
	for i, r := range table {
		if above.has>>i&1 == 0 || r.own {
			continue
		}
		if r.item == HoldID {
			s.Holds = slices.Compact(slices.Sorted(slices.Values(slices.Concat(above.Holds, own.Holds))))
			s.has |= 1 << i
		} else if s.has>>i&1 == 0 {
			r.take(&s, &above)
			s.has |= 1 << i
		}
	}
	return s
}

// CheckPlace reports why an object with the settings s may not be kept in place:
// problem.PlacementRefused, or nil. Without a placement every place will do, also an unknown one.
func (s Settings) CheckPlace(place Region) error {
	if !s.Has(GeographicPlacement) {
		return nil
	}
	return s.Placement.Check(place)
}
