package agent

import (
	"sync"

	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// What is remembered for one account, and for all accounts of one provider, at a time. A set has a limit of its own, and whoever
// filled it alone would keep everybody else's out for as long as orders live.
const (
	maxOrdersBy       = 50_000
	maxWithdrawalsBy  = 10_000
	maxWithdrawalsFor = 30_000 // of the accounts of one provider
)

// A share counts who has what in a set.
type share struct {
	set  *journal.Set
	by   func(key, value string) token.Identity // whose an entry is; empty: it counts with another
	most int                                    // entries of one account
	all  int                                    // of the accounts of one provider; 0 is no limit
	what string

	mu       sync.Mutex // guards all below; not held across I/O
	account  map[token.Identity]int
	provider map[token.Provider]int
	pending  map[string]*putting // entries on their way into the set
}

// A putting is an entry that is being put, by so many at once.
type putting struct {
	id    token.Identity
	users int
}

// counted makes s ready: it counts what is in the set.
func (s *share) counted() *share {
	s.pending = map[string]*putting{}
	s.recount()
	return s
}

// recount looks at the set as it is. It is asked at the start and after entries were dropped.
func (s *share) recount() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.account, s.provider = map[token.Identity]int{}, map[token.Provider]int{}
	for key, value := range s.set.All() {
		if id := s.by(key, value); id != "" && s.pending[key] == nil {
			s.add(id)
		}
	}
	for _, p := range s.pending {
		s.add(p.id)
	}
}

// add counts one more. mu is held.
func (s *share) add(id token.Identity) {
	s.account[id]++
	s.provider[id.Provider()]++
}

// put has put write the entry of an account. It returns problem.Overloaded, and nothing is written, if there is no entry of that key and it would be
// one too many of the account's.
func (s *share) put(key string, id token.Identity, put func() error) error {
	if err := s.take(key, id); err != nil {
		return err
	}
	defer s.leave(key)
	return put()
}

func (s *share) take(key string, id token.Identity) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pending[key]; p != nil {
		p.users++
		return nil
	}
	if _, ok := s.set.Get(key); !ok {
		if s.account[id] >= s.most {
			return problem.New(problem.Overloaded, "The agent remembers %d %s of %s, and no more at a time", s.most, s.what, id)
		}
		if s.all > 0 && s.provider[id.Provider()] >= s.all {
			return problem.New(problem.Overloaded, "The agent remembers %d %s of accounts at %s, and no more at a time", s.all, s.what, id.Provider())
		}
		s.add(id) // one that cannot be written is counted until the next recount
	}
	s.pending[key] = &putting{id: id, users: 1}
	return nil
}

func (s *share) leave(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pending[key]; p.users > 1 {
		p.users--
		return
	}
	delete(s.pending, key)
}
