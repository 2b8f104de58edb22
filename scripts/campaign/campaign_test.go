package main

import (
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
)

func TestSizes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]size{"0": 0, "17": 17, "4KiB": 4 << 10, "64MiB": 64 << 20, "8GiB": 8 << 30} {
		var got size
		if err := got.Set(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "4GB", "1.5GiB", "99999999999GiB", "4GiBKiB"} {
		var got size
		if err := got.Set(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}

// TestRaceIsGoodOnlyIfAllThreeHold checks that the campaign cannot pass by counting too little.
func TestRaceIsGoodOnlyIfAllThreeHold(t *testing.T) {
	t.Parallel()
	won := api.Transfer{State: api.Complete}
	lost := api.Transfer{State: api.Failed, Outcomes: map[token.Result]int64{token.TakenBy: 1}, Problem: &api.Problem{Code: "taken"}}
	a, b := []byte(strings.Repeat("a", small)), []byte(strings.Repeat("b", small))
	for name, tt := range map[string]struct {
		ends [2]api.Transfer
		got  []byte
		want bool
	}{
		"first wins":         {[2]api.Transfer{won, lost}, a, true},
		"second wins":        {[2]api.Transfer{lost, won}, b, true},
		"the loser's bytes":  {[2]api.Transfer{won, lost}, b, false},
		"torn":               {[2]api.Transfer{won, lost}, a[:small-1], false},
		"two winners":        {[2]api.Transfer{won, won}, a, false},
		"no winner":          {[2]api.Transfer{lost, lost}, a, false},
		"another reason":     {[2]api.Transfer{won, {State: api.Failed, Problem: &api.Problem{Code: "internal"}}}, a, false},
		"the loser expired":  {[2]api.Transfer{won, {State: api.Expired}}, a, false},
		"no reason is given": {[2]api.Transfer{won, {State: api.Failed, Outcomes: lost.Outcomes}}, a, false},
	} {
		tl := tally{Races: 1}
		tl.count(tt.ends, tt.got, small)
		if tl.good() != tt.want {
			t.Errorf("%s: got %+v, want good %v", name, tl, tt.want)
		}
	}
}
