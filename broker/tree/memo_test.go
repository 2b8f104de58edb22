package tree

import (
	"errors"
	"strings"
	"sync"
	"testing"
)

// TestAMemoIsBounded: it forgets before it grows beyond its bound, keeps no failure, and changes no answer.
func TestAMemoIsBounded(t *testing.T) {
	t.Parallel()
	var m memo[int]
	asked := 0
	size := func(text string) int {
		v, err := m.get(text, func() (int, error) { asked++; return len(text), nil })
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for n := range 100 {
		text := strings.Repeat("x", 100<<10+n)
		for range 2 {
			if got := size(text); got != len(text) {
				t.Fatalf("got %d, want %d", got, len(text))
			}
		}
		if m.size > maxMemo || len(m.read) > maxMemo/(100<<10) {
			t.Fatalf("it keeps %d texts of %d bytes", len(m.read), m.size)
		}
	}
	if asked != 100 {
		t.Errorf("read %d times, want each once", asked)
	}
	large := strings.Repeat("x", maxMemo/2)
	if size(large); m.read[large] != 0 {
		t.Error("one text would take half of it")
	}
	if _, err := m.get("bad", func() (int, error) { return 7, errors.New("bad") }); err == nil {
		t.Error("a failure is lost")
	}
	if v, err := m.get("bad", func() (int, error) { return 1, nil }); v != 1 || err != nil {
		t.Errorf("a failure was kept: got %d, %v", v, err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for n := range 100 {
				if v, _ := m.get(strings.Repeat("y", n), func() (int, error) { return n, nil }); v != n {
					t.Errorf("got %d, want %d", v, n)
				}
			}
		})
	}
	wg.Wait()
}
