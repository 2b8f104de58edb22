package main

import "testing"

func TestPercentile(t *testing.T) {
	t.Parallel()
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[99-i] = float64(i + 1)
	}
	for name, tt := range map[string]struct {
		all  []float64
		p    int
		want float64
	}{
		"of a hundred":   {hundred, 99, 99},
		"of fewer":       {[]float64{3, 1, 2}, 99, 3},
		"half of four":   {[]float64{4, 3, 2, 1}, 50, 2},
		"of one":         {[]float64{7}, 50, 7},
		"of none at all": {nil, 99, 0},
	} {
		if got := percentile(tt.all, tt.p); got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}

// TestSlowLookupsAreABrokenPromise checks that the campaign cannot pass by measuring too little, or what is not there.
func TestSlowLookupsAreABrokenPromise(t *testing.T) {
	t.Parallel()
	all := func(ms float64, n int) []float64 {
		out := make([]float64, n)
		for i := range out {
			out[i] = ms
		}
		return out
	}
	for name, tt := range map[string]struct {
		idle, meanwhile []float64
		want            bool
	}{
		"as quick":         {all(5, 200), all(5, 200), true},
		"three times":      {all(5, 200), all(15, 200), true},
		"more":             {all(5, 200), all(15.1, 200), false},
		"two in a hundred": {all(5, 200), append(all(5, 98), 50, 50), false},
		"too few":          {all(5, 200), all(5, 50), false},
		"none before":      {nil, all(5, 200), false},
	} {
		if s := slownessOf("ls", tt.idle, tt.meanwhile); s.good() != tt.want {
			t.Errorf("%s: got %+v, want good %v", name, s, tt.want)
		}
	}
}

func TestGrowthIsOfTheEnds(t *testing.T) {
	t.Parallel()
	var r adopted
	r.measure([]float64{10, 20, 90, 90, 90, 90, 30, 25})
	if r.FirstMiB != 20 || r.LastMiB != 30 || r.Growth != 1.5 {
		t.Errorf("got %+v, want from 20 to 30", r)
	}
}
