package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// markKey is the key of the number up to which a log is kept. No record has it: theirs begin with a letter.
const markKey = "/"

// forEver is until when records are kept: the broker takes each away itself.
var forEver = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// A kept is what one broker has told us of holds, retentions and wiping at our provider, durably: nothing is erased against it, whatever the broker says
// later, until it takes the record itself away. It is in one set of at most journal.MaxSetSize, in memory too; a broker that has more to say is told nothing
// of ours that it could erase by, until it has less.
type kept struct {
	set *journal.Set

	mu     sync.Mutex // guards all below
	seq    int64      // up to here the log is durable
	need   int64      // what the broker said at hello that there is
	bad    error      // why the newest page was not taken; nil if it was
	anew   map[string]bool
	wiping map[token.Container]map[string]store.Method // by record: what asks for wiping
}

// openKept reads what an earlier run has kept.
func openKept(set *journal.Set) (*kept, error) {
	k := &kept{set: set, wiping: map[token.Container]map[string]store.Method{}}
	for key, value := range set.All() {
		if key == markKey {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("reading how far the log of holds is kept: %w", err)
			}
			k.seq = n
			continue
		}
		c, kind, ok := partsOf(key)
		if !ok {
			return nil, fmt.Errorf("reading the record of a hold: %w", journal.ErrCorrupt)
		}
		s, err := settingsOf(kind, value)
		if err != nil {
			return nil, fmt.Errorf("reading the record of a hold: %w", errors.Join(err, journal.ErrCorrupt))
		}
		k.note(c, key, s)
	}
	return k, nil
}

// keptKey is the key of a place: kind, container, name.
func keptKey(kind acl.Kind, c token.Container, name token.ObjectName) string {
	letter := "c"
	if kind == acl.Object {
		letter = "o"
	}
	return letter + string(c) + "/" + string(name)
}

func partsOf(key string) (c token.Container, kind acl.Kind, ok bool) {
	if key == "" || key[0] != 'c' && key[0] != 'o' {
		return "", 0, false
	}
	if kind = acl.Container; key[0] == 'o' {
		kind = acl.Object
	}
	name, _, ok := strings.Cut(key[1:], "/")
	return token.Container(name), kind, ok
}

// settingsOf reads the metadata of a record.
func settingsOf(kind acl.Kind, data string) (space.Settings, error) {
	m, err := space.ParseMetadata([]byte(data))
	if err != nil {
		return space.Settings{}, err
	}
	return space.ParseSettings(kind, m)
}

// note remembers whether a record asks for wiping. The caller holds mu, or is alone.
func (k *kept) note(c token.Container, key string, s space.Settings) {
	if s.Sanitization == "" {
		delete(k.wiping[c], key)
		return
	}
	if k.wiping[c] == nil {
		k.wiping[c] = map[string]store.Method{}
	}
	k.wiping[c][key] = store.Method(s.Sanitization)
}

// take makes a page durable. A page that cannot be read or kept whole is refused whole, and then nothing is erased at this broker's word or anybody's
// before it comes again and is taken.
func (k *kept) take(p api.KeptPage) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.bad = k.absorb(p)
	return k.bad
}

// absorb does the work of take. mu is held.
func (k *kept) absorb(p api.KeptPage) error {
	if len(p.Records) > api.MaxKept {
		return problem.New(problem.TooLarge, "The page of holds has more than %d records", api.MaxKept)
	}
	if !p.Anew && p.Seq < k.seq {
		return problem.New(problem.Malformed, "The page of holds leads to %d, and %d was reached before", p.Seq, k.seq)
	}
	values := make(map[string]string, len(p.Records)+1)
	read := make(map[string]space.Settings, len(p.Records))
	for _, r := range p.Records {
		kind := acl.Container
		if r.Object {
			kind = acl.Object
		}
		if err := checkKept(r); err != nil {
			return err
		}
		key := keptKey(kind, r.Container, r.Name)
		if values[key] = r.Data; r.Data == "" {
			read[key] = space.Settings{}
			continue
		}
		s, err := settingsOf(kind, r.Data)
		if err != nil {
			return fmt.Errorf("reading the metadata of %q: %w", r.Name, err)
		}
		read[key] = s
	}
	if p.Anew {
		k.anew = map[string]bool{}
	}
	if k.anew != nil {
		for key := range values {
			k.anew[key] = true
		}
		if p.Last {
			k.drop(values)
		}
	}
	if k.anew == nil || p.Last {
		values[markKey] = strconv.FormatInt(p.Seq, 10)
	}
	if err := k.set.PutAll(maps.All(values), forEver); err != nil { // Durable from here.
		if errors.Is(err, journal.ErrFull) {
			return problem.Wrap(err, problem.Overloaded, "The agent keeps %d bytes of holds and retentions of a broker, and no more", journal.MaxSetSize)
		}
		return fmt.Errorf("keeping holds: %w", err)
	}
	for key := range values {
		if c, _, ok := partsOf(key); ok {
			k.note(c, key, read[key])
		}
	}
	if k.anew == nil || p.Last {
		k.seq, k.anew = p.Seq, nil
	}
	return nil
}

// drop adds to values the removal of every record that a log which was told anew has not repeated. mu is held.
func (k *kept) drop(values map[string]string) {
	for key := range k.set.All() {
		if key != markKey && !k.anew[key] {
			values[key] = ""
		}
	}
}

func checkKept(r api.Kept) error {
	if err := token.CheckContainer(r.Container); err != nil {
		return err
	}
	if len(r.Data) > api.MaxKeptData {
		return problem.New(problem.TooLarge, "The record of a hold has more than %d bytes", api.MaxKeptData)
	}
	if r.Name == "" && !r.Object {
		return nil
	}
	return token.CheckName(r.Name)
}

// reached returns the number up to which the log is durable.
func (k *kept) reached() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seq
}

// expect notes what the broker says that there is. A log that is now shorter than ours is another, and is told anew.
func (k *kept) expect(seq int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.need = seq
}

// whole returns nil if everything that the broker has said that there is was taken, and problem.Overloaded until then.
func (k *kept) whole() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.bad != nil {
		return problem.Wrap(k.bad, problem.Overloaded, "The agent could not keep all holds and retentions that the broker told it of, and erases nothing until it can: %s", problem.As(k.bad).Sentence())
	}
	if k.anew != nil || k.seq < k.need {
		return problem.New(problem.Overloaded, "The agent has not been told of all holds and retentions yet, and erases nothing before")
	}
	return nil
}

// inForce is what a broker has told us of a place, with all that its containers hand down.
func (k *kept) inForce(c token.Container, name token.ObjectName, kind acl.Kind) (space.Settings, error) {
	in, err := k.own(acl.Container, c, "")
	if err != nil || name == "" {
		return in, err
	}
	for i := range len(name) {
		if name[i] != '/' {
			continue
		}
		own, err := k.own(acl.Container, c, name[:i])
		if err != nil {
			return space.Settings{}, err
		}
		in = space.Inherit(in, own)
	}
	own, err := k.own(kind, c, name)
	if err != nil {
		return space.Settings{}, err
	}
	return space.Inherit(in, own), nil
}

// own is the record of one place; nothing if there is none.
func (k *kept) own(kind acl.Kind, c token.Container, name token.ObjectName) (space.Settings, error) {
	data, ok := k.set.Get(keptKey(kind, c, name))
	if !ok {
		return space.Settings{}, nil
	}
	s, err := settingsOf(kind, data)
	if err != nil {
		return space.Settings{}, fmt.Errorf("reading the record of a hold: %w", errors.Join(err, journal.ErrCorrupt))
	}
	return s, nil
}

// method returns what somewhere in a container asks for wiping, or none.
func (k *kept) method(c token.Container) store.Method {
	k.mu.Lock()
	defer k.mu.Unlock()
	var m store.Method
	for _, asked := range k.wiping[c] {
		m = max(m, asked)
	}
	return m
}

// takeKept takes a page of the broker's log, lets the stores obey it, and tells the broker that it is durable. If the broker does not hear that, the
// stream ends, and the next hello says it. A page that is not taken is an alarm: nothing is erased any more.
func (s *session) takeKept(ctx context.Context, p api.KeptPage) error {
	if err := s.kept.take(p); err != nil {
		s.a.metrics.refusals.WithLabelValues(string(problem.Of(err))).Inc()
		s.log.Error("ALARM: a page of holds and retentions is not taken, and nothing is erased until it is", zap.Error(err))
		return nil
	}
	s.a.sanitize(s.a.conf.Exports)
	ctx, cancel := context.WithTimeout(ctx, beatIdle)
	defer cancel()
	if err := s.ctl.PutKept(ctx, api.KeptMark{Seq: p.Seq}); err != nil {
		return fmt.Errorf("telling how far holds are kept: %w", err)
	}
	return nil
}

// compactKept lets the sets be written anew where most of them is waste.
func (a *Agent) compactKept(now time.Time) error {
	var errs []error
	for _, k := range a.kept {
		errs = append(errs, k.set.Compact(now))
	}
	return errors.Join(errs...)
}

// sanitize lets the stores wipe the stages that they throw away, where anything in the container asks for that: a stage does not say what it was to become.
func (a *Agent) sanitize(exports []Export) {
	for _, e := range exports {
		var m store.Method
		for _, k := range a.kept {
			m = cmp.Or(m, k.method(e.Container))
		}
		e.Store.Sanitize(m)
	}
}

// mayErase returns the method by which what is at a place is to be wiped, if nothing that any broker has told us of forbids to erase it at now: problem.OnHold,
// problem.UnderRetention; problem.Overloaded while we do not know all that the broker which asks has said; problem.Unsanitizable
// if the store cannot wipe as it is asked to.
func (s *session) mayErase(e *Export, name token.ObjectName, kind acl.Kind, now time.Time) (store.Method, error) {
	if err := s.kept.whole(); err != nil {
		return "", err
	}
	var m store.Method
	for _, k := range s.a.kept {
		in, err := k.inForce(e.Container, name, kind)
		if err != nil {
			return "", err
		}
		if err := in.CheckFree(now); err != nil {
			return "", err
		}
		m = cmp.Or(m, store.Method(in.Sanitization))
	}
	if m == "" || kind != acl.Object {
		return "", nil
	}
	for _, can := range e.Store.Methods() {
		if can == m {
			return m, nil
		}
	}
	return "", problem.New(problem.Unsanitizable, "The metadata in force ask that %q be wiped by %q, which the store does not do", name, string(m))
}
