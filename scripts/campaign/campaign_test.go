package main

import (
	"errors"
	"io"
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

func TestLatencyIsOfAllRuns(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		all  []float64
		want latency
	}{
		"odd":  {[]float64{3, 1, 2}, latency{"k", 3, 2, 3}},
		"even": {[]float64{4, 1, 2, 3}, latency{"k", 4, 2.5, 4}},
		"none": {nil, latency{Kind: "k"}},
	} {
		if got := latencyOf("k", tt.all); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
}

// TestSlowStopIsABrokenPromise checks that one late byte among many quick stops is not averaged away.
func TestSlowStopIsABrokenPromise(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		seen map[string][]float64
		want error
	}{
		"all quick":   {map[string][]float64{"pause": {1, 2}, "all": {1, 2}}, nil},
		"one is slow": {map[string][]float64{"pause": {1, 1, 1, 30}, "all": {1, 1, 1, 30}}, errBroken},
	} {
		b := &bench{out: io.Discard}
		if err := b.judge(tt.seen); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
}
