package tree

import "sync"

// maxMemo is how many bytes of rows' texts a memo has the values of.
const maxMemo = 2 << 20

// A memo keeps what texts of rows were read as: few different ones are read again and again, each by a parser that believes nothing. It changes no
// outcome, and its size is bounded. Its zero value is empty; it may be used concurrently.
type memo[V any] struct {
	mu   sync.Mutex
	read map[string]V // guarded by mu
	size int          // of the texts in read; guarded by mu
}

// get returns what read makes of text. Only successes are kept, and values must never be changed.
func (m *memo[V]) get(text string, read func() (V, error)) (V, error) {
	m.mu.Lock()
	v, ok := m.read[text]
	m.mu.Unlock()
	if ok {
		return v, nil
	}
	v, err := read()
	if err != nil || len(text) > maxMemo/4 {
		return v, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.size+len(text) > maxMemo || m.read == nil {
		m.read, m.size = map[string]V{}, 0
	}
	if _, twice := m.read[text]; !twice {
		m.read[text] = v
		m.size += len(text)
	}
	return v, nil
}
