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

	mu       sync.Mutex
	account  map[token.Identity]int
	provider map[token.Provider]int
}

// recount looks at the set as it is. It is asked at the start and after entries were dropped.
func (s *share) recount() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.account, s.provider = map[token.Identity]int{}, map[token.Provider]int{}
	for key, value := range s.set.All() {
		if id := s.by(key, value); id != "" {
			s.add(id)
		}
	}
}

// add counts one more. mu is held.
func (s *share) add(id token.Identity) {
	s.account[id]++
	s.provider[id.Provider()]++
}

// take returns problem.Overloaded if key is not in the set and would be one too many of the account's, and counts it otherwise.
func (s *share) take(key string, id token.Identity) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.set.Get(key); ok {
		return nil
	}
	if s.account[id] >= s.most {
		return problem.New(problem.Overloaded, "The agent remembers %d %s of %s, and no more at a time", s.most, s.what, id)
	}
	if s.all > 0 && s.provider[id.Provider()] >= s.all {
		return problem.New(problem.Overloaded, "The agent remembers %d %s of accounts at %s, and no more at a time", s.all, s.what, id.Provider())
	}
	s.add(id) // one that is not put after all is counted until the next recount
	return nil
}
