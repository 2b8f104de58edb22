// Package problem is the table of failures that cross a wire: each has a code
// that never changes, one sentence for people, a remedy, and its spelling on
// every surface (HTTP status, QUIC application code, exit code of the CLI).
//
// It guarantees three things. A code, once published, keeps its number and
// its meaning. The text of an Error's Detail is fit for a stranger: it holds no
// path, address, key or rejected secret. The Cause is for our own log and is
// never marshalled.
//
// The package does not log and does not decide whether to retry; it only says
// whether a retry may help.
package problem

import (
	"context"
	"errors"
	"fmt"
)

// A Code names one kind of failure, for example "taken". Codes are compared as
// strings and are stable for ever.
type Code string

// A Kind is a row of the table: what a code means everywhere.
type Kind struct {
	Code   Code
	Number uint64 // QUIC application error code, also the order of publication; append only
	HTTP   int    // HTTP status (RFC 9110)
	Exit   int    // exit status of the command line
	Retry  Retry
	Title  string // one sentence, no names, no full stop
	Remedy string // what the reader can do next, one sentence
}

// Retry says whether asking again may help.
type Retry int

const (
	// Never means that the same request will be refused again.
	Never Retry = iota
	// Later means that the same request may succeed without any change by the asker.
	Later
)

// An Error is one failure of a Kind. It is immutable once made. Match it with
// errors.As, or ask Of for its code.
type Error struct {
	Code   Code
	Detail string // one public sentence about this occurrence; empty means the Kind's Title
	Remedy string // empty means the Kind's Remedy
	Cause  error  // for our own log only; may be nil
}

// New returns an error of the given kind with a public sentence.
func New(code Code, format string, args ...any) error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Wrap returns an error of the given kind whose public sentence hides cause.
func Wrap(cause error, code Code, format string, args ...any) error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...), Cause: cause}
}

// Error is for our own log: it includes the cause.
func (e *Error) Error() string {
	s := string(e.Code) + ": " + e.Sentence()
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause, so that errors.Is sees through.
func (e *Error) Unwrap() error { return e.Cause }

// Sentence is the public description of this occurrence.
func (e *Error) Sentence() string {
	if e.Detail != "" {
		return e.Detail
	}
	return Lookup(e.Code).Title
}

// Advice is the public remedy of this occurrence.
func (e *Error) Advice() string {
	if e.Remedy != "" {
		return e.Remedy
	}
	return Lookup(e.Code).Remedy
}

// Of returns the code of err: the outermost *Error in its chain, Cancelled or
// Timeout for a context's end, Internal for anything else, and "" for nil.
func Of(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.Is(err, context.Canceled):
		return Cancelled
	}
	return Internal
}

// As returns the outermost *Error of err, making one of the code that Of
// names where there is none: its sentence is then the Kind's, so that nothing of an unknown error leaks.
// It returns nil for nil.
func As(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: Of(err), Cause: err}
}

// MayRetry reports whether the kind of err is one that may pass by itself.
func MayRetry(err error) bool { return err != nil && Lookup(Of(err)).Retry == Later }

// Denial reports whether a failure of that kind is a refusal for want of identity or authority, which the owner of
// the transfer has to hear of: not one that the refused cures by itself, such as a capability that is renewed or that the
// owner has revoked, nor one of a store.
func Denial(code Code) bool {
	switch code {
	case CapExpired, CapStale, CapOverBudget, CapRevoked, OrderExpired, OrderNotDue, Unreadable, Unwritable:
		return false
	case CRLStale, OrderSpent:
		return true
	}
	k := Lookup(code)
	return k.HTTP == 401 || k.HTTP == 403
}

// maxQuoted is how many runes of something rejected a sentence repeats.
const maxQuoted = 40

// Quote is something rejected as a sentence repeats it: a Go string literal of ASCII, cut so that a sentence stays one.
func Quote(s string) string {
	n := 0
	for i := range s {
		if n++; n > maxQuoted {
			return fmt.Sprintf("%+q...", s[:i])
		}
	}
	return fmt.Sprintf("%+q", s)
}
