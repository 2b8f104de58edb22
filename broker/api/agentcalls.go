package api

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Hello announces an agent. It comes before Tasks, at each connection anew.
func (c *Client) Hello(ctx context.Context, h Hello) (Welcome, error) {
	var w Welcome
	err := c.do(ctx, call{method: http.MethodPost, path: "/v1/agent/hello", body: h}, &w)
	return w, err
}

// PostPage hands in a page of the result of a list, stat or make task. Posting the same
// page twice is harmless. problem.LeaseLost: nobody wants the result any more.
func (c *Client) PostPage(ctx context.Context, taskID string, p TaskPage) (TaskPageAnswer, error) {
	var a TaskPageAnswer
	err := c.do(ctx, call{method: http.MethodPost, path: taskPath(taskID, "/pages"), body: p}, &a)
	return a, err
}

// Refuse tells the broker that a receive or serve task is not taken, and why. It is idempotent.
func (c *Client) Refuse(ctx context.Context, taskID string, r Refusal) error {
	return c.do(ctx, call{method: http.MethodPost, path: taskPath(taskID, "/refuse"), body: r}, nil)
}

// Beat is an agent's sign of life.
func (c *Client) Beat(ctx context.Context, b Beat) (BeatAnswer, error) {
	var a BeatAnswer
	err := c.do(ctx, call{method: http.MethodPost, path: "/v1/agent/beat", body: b}, &a)
	return a, err
}

// Report tells the broker of refused lanes, at most MaxReports at once. What is of no batch of this agent's is passed over.
func (c *Client) Report(ctx context.Context, r Reports) error {
	return c.do(ctx, call{method: http.MethodPost, path: "/v1/agent/reports", body: r}, nil)
}

// Revocations returns the broker's newest list of revocations if its epoch is greater than after.
func (c *Client) Revocations(ctx context.Context, after int64) (Revocations, error) {
	var r Revocations
	err := c.do(ctx, call{method: http.MethodGet, path: query("/v1/agent/revocations", "after", number(after)), limit: 2 * token.MaxRevocationSize}, &r)
	return r, err
}

// PutKept tells the broker up to which number the agent has made its log of holds and retentions durable.
func (c *Client) PutKept(ctx context.Context, m KeptMark) error {
	return c.do(ctx, call{method: http.MethodPost, path: "/v1/agent/kept", body: m}, nil)
}

// Renew asks for the next generation of a batch's capabilities, bound to the certificate of
// this very call. problem.LeaseLost: the batch has ended or is another agent's.
func (c *Client) Renew(ctx context.Context, r Ref) (Renewal, error) {
	var n Renewal
	path := "/v1/agent/batches/" + url.PathEscape(string(r.Xfr)) + "/" + strconv.FormatInt(r.Bat, 10) + "/renew"
	err := c.do(ctx, call{method: http.MethodPost, path: path}, &n)
	return n, err
}

// PostReceipt hands a receipt in. When it returns nil, the receipt is durable at the broker. It
// is idempotent; problem.Conflict: another receipt of that batch, part and side was accepted before.
func (c *Client) PostReceipt(ctx context.Context, r SignedReceipt) (ReceiptAnswer, error) {
	var a ReceiptAnswer
	err := c.do(ctx, call{method: http.MethodPost, path: "/v1/agent/receipts", body: r}, &a)
	return a, err
}

func taskPath(id, rest string) string { return "/v1/agent/tasks/" + url.PathEscape(id) + rest }

// Tasks opens the agent's task stream and calls fn for each line, in order, in the caller's
// goroutine. It ends with fn's own error if fn returns one, and otherwise with a *problem.Error:
// problem.Unavailable also when the broker closed the stream, with its reason if it gave one, or was silent for PingDeadline. The broker is judged anew at
// each line, and nothing is taken from one that is not good any more.
// It never returns nil. Time spent in fn does not count as silence.
func (c *Client) Tasks(ctx context.Context, fn func(Line) error) error {
	return lines(ctx, c, "/v1/agent/tasks", fn)
}

// Follow opens the stream of all events that the caller may see whose numbers are beyond after, or that come from now on if
// after is negative, and calls fn for each line. It ends as Tasks does; opened again with the Seq of the last line, it goes on
// behind that.
func (c *Client) Follow(ctx context.Context, after int64, fn func(EventLine) error) error {
	path := "/v1/events"
	if after >= 0 {
		path += "?after=" + strconv.FormatInt(after, 10)
	}
	return lines(ctx, c, path, fn)
}

// lines opens a stream of lines, one JSON value each.
func lines[T any](ctx context.Context, c *Client, path string, fn func(T) error) error {
	silent := errors.New("the broker was silent for " + PingDeadline.String())
	own, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(PingDeadline, func() { cancel(silent) })
	defer watch.Stop()
	fail := func(err error) error {
		if ctx.Err() == nil && errors.Is(context.Cause(own), silent) {
			return problem.Wrap(silent, problem.Unavailable, "The broker has not been heard of for %s", PingDeadline)
		}
		return c.explain(ctx, err)
	}
	resp, err := c.send(own, call{method: http.MethodGet, path: path})
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerSize))
		if err != nil {
			return fail(err)
		}
		return refusal(resp.StatusCode, data)
	}
	in := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		watch.Reset(PingDeadline)
		data, err := readLine(in)
		watch.Stop()
		if errors.Is(err, io.EOF) {
			return problem.New(problem.Unavailable, "The broker closed the stream")
		}
		if err != nil {
			return fail(err)
		}
		if err := c.judge(resp.TLS); err != nil {
			return c.explain(ctx, err)
		}
		var l T
		var last LastLine
		if err := cmp.Or(json.Unmarshal(data, &last), json.Unmarshal(data, &l)); err != nil {
			return problem.Wrap(fmt.Errorf("decoding a line of a stream: %w", err), problem.Unavailable,
				"A line of the broker's stream could not be read")
		}
		if last.Problem != nil && last.Problem.Code != "" {
			return &problem.Error{ // of a kind to come back after, and be told then what there is to tell
				Code: problem.Unavailable, Detail: shorten("The broker ended the stream: " + last.Problem.Detail), Remedy: shorten(last.Problem.Remedy),
			}
		}
		if err := fn(l); err != nil {
			return err
		}
	}
}

// readLine returns the next line without its end; io.EOF where the stream ends. A last line
// without an end was cut off and is not returned.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		piece, err := r.ReadSlice('\n')
		if len(line)+len(piece) > MaxTaskSize {
			return nil, problem.New(problem.TooLarge, "A line of the broker's stream is larger than %d bytes", MaxTaskSize)
		}
		line = append(line, piece...)
		switch {
		case err == nil:
			return bytes.TrimSuffix(line, []byte("\n")), nil
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		}
		return nil, err
	}
}
