package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// remember is how long past an order's end its marks are kept.
const remember = 24 * time.Hour

// endOf is when what belongs to an order may be forgotten.
func endOf(o token.Order) time.Time { return time.Unix(o.Exp, 0).Add(remember) }

// orders is which broker each order belongs to: the first that presented it; and which run of a standing order was begun last.
type orders struct {
	set   *journal.Set
	share *share
	mu    *sync.Mutex // one run at a time is begun
}

// newOrders makes the memory of orders of a set, whose entries name the account: that of the order at our own provider.
func newOrders(set *journal.Set) orders {
	return orders{set: set, mu: new(sync.Mutex), share: (&share{set: set, most: maxOrdersBy, what: "orders", by: func(_, value string) token.Identity {
		_, _, account := parseOwner(value)
		return account
	}}).counted()}
}

// firstSeen is when this agent first saw the order, or now.
func (o orders) firstSeen(ord token.Hash, now time.Time) time.Time {
	held, ok := o.set.Get(string(ord))
	if !ok {
		return now
	}
	_, at, _ := parseOwner(held)
	return time.Unix(at, 0)
}

// bind makes the order iss's, durably, or fails with problem.OrderSpent if it is another broker's, and with problem.Overloaded if its account has
// had too many that have not ended.
func (o orders) bind(w will, iss token.Identity, now time.Time) error {
	held := ""
	if err := o.share.put(string(w.ord), w.account, func() (err error) {
		held, err = o.set.Claim(string(w.ord), string(iss)+" "+strconv.FormatInt(now.Unix(), 10)+" "+string(w.account), endOf(w.Order))
		return err
	}); err != nil {
		return fmt.Errorf("binding the order to its broker: %w", err)
	}
	if owner, _, _ := parseOwner(held); owner != iss {
		return problem.New(problem.OrderSpent, "The order was already presented by another broker")
	}
	return nil
}

// noRun is the run before the first.
const noRun = -1

// beginRun makes w the newest run of its standing order, durably, and returns the run that was the newest: w's own if it is so already, noRun if w
// is the first. A run before the newest is problem.OrderSpent: it was let end, or was never begun and is made up for by a later one.
func (o orders) beginRun(w will) (int64, error) {
	key := string(w.ord) + " run"
	o.mu.Lock()
	defer o.mu.Unlock()
	newest := int64(noRun)
	if held, ok := o.set.Get(key); ok {
		var err error
		if newest, err = strconv.ParseInt(held, 10, 64); err != nil {
			return noRun, fmt.Errorf("reading the newest run of an order: %w", err)
		}
	}
	switch {
	case w.run < newest:
		return noRun, problem.New(problem.OrderSpent, "Run %d of the standing order has begun, so that run %d is over", newest, w.run)
	case w.run > newest:
		if err := o.set.Put(key, strconv.FormatInt(w.run, 10), endOf(w.Order)); err != nil {
			return noRun, fmt.Errorf("beginning a run of an order: %w", err)
		}
	}
	return newest, nil
}

// bind makes w's order iss's and begins w's run of it, durably. The names that the run before it has stored are forgotten: nothing is stored for that any more.
func (a *Agent) bind(w will, iss token.Identity, now time.Time) error {
	if err := a.orders.bind(w, iss, now); err != nil || !w.Standing() {
		return err
	}
	before, err := a.orders.beginRun(w)
	if err != nil || before == noRun || before == w.run {
		return err
	}
	return a.names.forgetRun(bill{will: w, key: batchKey{iss: iss, xfr: w.Run(before)}})
}

// parseOwner reads whose an order is, when it was first seen, and for which account.
func parseOwner(value string) (iss token.Identity, at int64, account token.Identity) {
	first, rest, _ := strings.Cut(value, " ")
	when, whose, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseInt(when, 10, 64)
	if err != nil {
		return "", 0, ""
	}
	return token.Identity(first), n, token.Identity(whose)
}

// spent is which batches were carried out to their end.
type spent struct{ set *journal.Set }

func (s spent) has(k batchKey) bool {
	_, ok := s.set.Get(k.String())
	return ok
}

// put marks the batch, durably. A batch of a standing order is marked for as long as a capability for it may be good: orders.beginRun keeps
// older runs away, and the marks of all runs until the order's end would fill the set.
func (s spent) put(k batchKey, o token.Order, now time.Time) error {
	until := endOf(o)
	if soon := now.Add(token.MaxCapabilityLife + remember); o.Standing() && soon.Before(until) {
		until = soon
	}
	if err := s.set.Put(k.String(), "", until); err != nil {
		return fmt.Errorf("marking the batch as spent: %w", err)
	}
	return nil
}

const (
	printSize  = 16       // bytes of a name's fingerprint
	printPiece = 64 << 10 // bytes of a file of fingerprints that are read at once
)

// names is which destination names were stored for each order: a file of fingerprints a transfer, so
// that an order cannot be run twice. Memory does not grow with it.
type names struct {
	dir disk.FS
	mu  *sync.Mutex // one reader or writer of the files at a time
}

// file names the file of a batch's transfer; its end is in the name, for the janitor.
func (n names) file(b bill) string {
	return string(b.key.xfr) + "-" + short(string(b.key.iss)) + "-" + strconv.FormatInt(endOf(b.will.Order).Unix(), 10)
}

// checkNew fails with problem.OrderSpent if a destination name of b was stored before for the same order.
func (n names) checkNew(b bill) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	f, err := n.dir.OpenFile(n.file(b), disk.Read)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the names of the transfer: %w", err)
	}
	defer f.Close()
	want := make(map[[printSize]byte]token.ObjectName, len(b.man.Items))
	for _, it := range b.man.Items {
		want[fingerprint(it.Dst)] = it.Dst
	}
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("measuring the names of the transfer: %w", err)
	}
	buf := make([]byte, printPiece)
	for off := int64(0); off < st.Size; off += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), st.Size-off)]
		if _, err := f.ReadAt(buf, off); err != nil {
			return fmt.Errorf("reading the names of the transfer: %w", err)
		}
		for p := buf; len(p) >= printSize; p = p[printSize:] {
			if name, ok := want[[printSize]byte(p)]; ok {
				return problem.New(problem.OrderSpent, "The name %q was already stored for this order", name)
			}
		}
	}
	return nil
}

// add appends the names, durably. Adding one twice is harmless.
func (n names) add(b bill, stored []token.ObjectName) error {
	if len(stored) == 0 {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	f, err := n.dir.OpenFile(n.file(b), disk.Write)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = n.dir.OpenFile(n.file(b), disk.Create)
	}
	if err != nil {
		return fmt.Errorf("opening the names of the transfer: %w", err)
	}
	st, err := f.Stat()
	if err == nil {
		var buf bytes.Buffer
		for _, name := range stored {
			p := fingerprint(name)
			buf.Write(p[:])
		}
		_, err = f.WriteAt(buf.Bytes(), st.Size/printSize*printSize) // over what a crash has torn
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = n.dir.Sync() // Durable from here.
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("adding to the names of the transfer: %w", err)
	}
	return nil
}

// forgetRun removes the file of b's transfer.
func (n names) forgetRun(b bill) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.dir.Remove(n.file(b)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting the names of a run: %w", err)
	}
	return nil
}

// forget removes the files whose orders are long over, and returns how many.
func (n names) forget(now time.Time) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var old []string
	err := n.dir.Names(func(name string) bool {
		end, err := strconv.ParseInt(name[strings.LastIndexByte(name, '-')+1:], 10, 64)
		if err == nil && end < now.Unix() {
			old = append(old, name)
		}
		return true
	})
	for _, name := range old {
		err = errors.Join(err, n.dir.Remove(name))
	}
	return len(old), err
}

func fingerprint(name token.ObjectName) (p [printSize]byte) {
	sum := sha256.Sum256([]byte(name))
	copy(p[:], sum[:])
	return p
}

// short is a name for s where a file system wants one.
func short(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}
