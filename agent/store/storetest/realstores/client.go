package realstores

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

// maxAnswer bounds what is read of one answer, in bytes.
const maxAnswer = 64 << 20

// An Answer is what a server answered to a request that it granted.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// A Refusal is an answer with a status from 300 up.
type Refusal struct {
	Status int
	Header http.Header
	Body   []byte
}

// Error implements error.
func (r *Refusal) Error() string {
	return fmt.Sprintf("status %d: %.500s", r.Status, r.Body)
}

// do sends a request and reads the whole answer.
func do(req *http.Request) (*Answer, error) {
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("sending: %w", err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer to %s %s: %w", req.Method, req.URL.Path, err)
	}
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("the answer to %s %s has more than %d bytes", req.Method, req.URL.Path, maxAnswer)
	}
	if res.StatusCode >= http.StatusMultipleChoices {
		return nil, fmt.Errorf("%s %s: %w", req.Method, req.URL.Path, &Refusal{res.StatusCode, res.Header, b})
	}
	return &Answer{res.StatusCode, res.Header, b}, nil
}

func makeFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making a server's folder: %w", err)
	}
	return nil
}
