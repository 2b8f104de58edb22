package storetest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	nRaces = 1000 // how often two batches race for one name
	nLarge = 16   // how often with an item of several parts
	tracks = 8    // how many such pairs race at once
)

func races(t *testing.T, s Subject) {
	stores := s.both(t)
	var wg sync.WaitGroup
	for track := range tracks {
		pair := openPair(t, stores, track)
		wg.Go(func() {
			for n := track; n < s.times(nRaces) && !t.Failed(); n += tracks {
				it := s.item(n, token.ObjectName(fmt.Sprintf("d%d/n%d", n%7, n)), 7)
				race(t, stores, pair, it, [2][]byte{[]byte("racer 0"), []byte("racer 1")})
			}
		})
	}
	wg.Wait()
}

func largeRaces(t *testing.T, s Subject) {
	stores := s.both(t)
	contents := [2][]byte{Content(1, s.large(2)), Content(2, s.large(2))}
	pair := openPair(t, stores, 0)
	for n := range s.times(nLarge) {
		race(t, stores, pair, s.item(n, token.ObjectName(fmt.Sprintf("d%d/n%d", n%7, n)), s.large(2)), contents)
	}
}

func sameContent(t *testing.T, s Subject) {
	stores := s.both(t)
	pair := openPair(t, stores, 0)
	for n, size := range []int{0, 1, 100, token.ChunkSize, s.large(2), s.large(2)} {
		data := Content(n, size)
		race(t, stores, pair, s.item(n, token.ObjectName(fmt.Sprint("same-", n)), size), [2][]byte{data, data})
	}
}

func openPair(t testing.TB, stores [2]store.Store, track int) (pair [2]store.Batch) {
	t.Helper()
	for i, s := range stores {
		pair[i] = openBatch(t, s, racer(track, i))
	}
	return pair
}

func racer(track, i int) store.BatchID { return store.BatchID(fmt.Sprintf("racer-%d-%d", track, i)) }

// race lets both batches publish an item of the same name at once.
func race(t *testing.T, stores [2]store.Store, pair [2]store.Batch, it store.Item, contents [2][]byte) {
	t.Helper()
	for i, b := range pair {
		if err := tryStage(t, b, it, contents[i]); err != nil {
			t.Errorf("race %d: %v", it.Index, err)
			return
		}
	}
	var outs [2]store.Published
	var wg sync.WaitGroup
	for i, b := range pair {
		wg.Go(func() {
			outs[i] = b.Publish(t.Context(), []store.Publication{publication(it, contents[i])})[0]
		})
	}
	wg.Wait()
	winner := 0
	if outs[0].Err != nil {
		winner = 1
	}
	if outs[winner].Err != nil {
		t.Errorf("race %d: nobody won: %v, %v", it.Index, outs[0].Err, outs[1].Err)
		return
	}
	wantProblem(t, fmt.Sprintf("race %d: the loser's Publish", it.Index), outs[1-winner].Err, problem.Taken)
	wantContent(t, stores[1-winner], it.Name, contents[winner])
	// Asked again, each is told the same.
	for i, b := range pair {
		again := b.Publish(t.Context(), []store.Publication{publication(it, contents[i])})[0]
		if i != winner {
			wantProblem(t, fmt.Sprintf("race %d: the loser's second Publish", it.Index), again.Err, problem.Taken)
		} else if again.Err != nil || again.Info.Version != outs[winner].Info.Version {
			t.Errorf("race %d: the winner's second Publish: got %+v, want %+v", it.Index, again, outs[winner])
		}
	}
}
