package token

import (
	"github.com/consign-transfer/consign/token/problem"
)

// Limits of an Outcome, in bytes; its whole line is bounded by MaxOutcomeSize.
const (
	MaxCodeSize   = 64
	MaxNativeSize = 128
	MaxLostSize   = 64 // of one name
	MaxLost       = 16 // names
)

// Check reports why o is not well formed: nil or problem.Malformed. Stored, Sent
// and Existed have no code and all others have one; Stored and Sent have digest
// and version, and Stored alone may have a value digest; taken, changed and skipped are the outcome of exactly the problems
// of the same name.
func (o Outcome) Check() error {
	if err := o.checkTexts(); err != nil {
		return err
	}
	if o.Item < 0 || o.Item >= MaxItems {
		return problem.New(problem.Malformed, "The outcome's item is not 0 to %d.", MaxItems-1)
	}
	if o.Size < 0 || o.Size > maxInteger {
		return problem.New(problem.Malformed, "The outcome's size is negative or too large.")
	}
	if err := o.Digest.Check(); err != nil {
		return err
	}
	if err := o.Hash.Check(); err != nil {
		return err
	}
	if o.Hash != "" && o.Outcome != Stored {
		return problem.New(problem.Malformed, "Only an item that is stored has a value hash.")
	}
	switch o.Outcome {
	case Stored, Sent:
		if o.Digest == "" || o.Version == "" {
			return problem.New(problem.Malformed, "The outcome %s has no digest or no version.", o.Outcome)
		}
		return o.checkCode(o.Code == "")
	case Existed:
		return o.checkCode(o.Code == "")
	case TakenBy, Altered, Left:
		return o.checkCode(ResultOf(problem.Code(o.Code)) == o.Outcome)
	case Denied, Failed, Untried:
		r := ResultOf(problem.Code(o.Code))
		return o.checkCode(o.Code != "" && r != TakenBy && r != Altered && r != Left)
	}
	return problem.New(problem.Malformed, "The outcome %s does not exist.", problem.Quote(string(o.Outcome)))
}

func (o Outcome) checkCode(fits bool) error {
	if !fits {
		return problem.New(problem.Malformed, "The outcome %s cannot have the code %s.", o.Outcome, problem.Quote(o.Code))
	}
	return nil
}

func (o Outcome) checkTexts() error {
	if len(o.Code) > MaxCodeSize || !only(o.Code, isCodeByte) {
		return problem.New(problem.Malformed, "The outcome's code is not of at most %d lower-case letters and '-'.", MaxCodeSize)
	}
	if err := checkText("outcome's detail", o.Detail, MaxDetailSize); err != nil {
		return err
	}
	if err := checkText("outcome's native digest", o.Native, MaxNativeSize); err != nil {
		return err
	}
	if err := checkText("outcome's version", string(o.Version), MaxVersionSize); err != nil {
		return err
	}
	if len(o.Lost) > MaxLost {
		return problem.New(problem.Malformed, "The outcome lists more than %d lost attributes.", MaxLost)
	}
	for i, name := range o.Lost {
		if err := checkText("name of a lost attribute", name, MaxLostSize); err != nil {
			return err
		}
		if name == "" || i > 0 && o.Lost[i-1] >= name {
			return problem.New(problem.Malformed, "The lost attributes are not sorted, or one is empty or there twice.")
		}
	}
	return nil
}

func isCodeByte(c byte) bool { return 'a' <= c && c <= 'z' || c == '-' }

// ResultOf returns the outcome that a failure of the given code leads to: TakenBy,
// Altered, Left and Untried for the problems of the same name, Denied for those
// that the command line calls denied, Failed for any other code, and "" for none.
func ResultOf(code problem.Code) Result {
	switch code {
	case "":
		return ""
	case problem.Taken:
		return TakenBy
	case problem.Changed:
		return Altered
	case problem.Skipped:
		return Left
	case problem.Untried:
		return Untried
	}
	if problem.Lookup(code).Exit == problem.ExitDenied {
		return Denied
	}
	return Failed
}

// Match compares what source and destination signed of the same item: nil, or
// problem.Disputed if both cannot be true. Stored needs Sent with equal size and
// digest; Stored is never said by a source, nor Sent by a destination.
func Match(src, dst Outcome) error {
	switch {
	case src.Item != dst.Item:
		return problem.New(problem.Disputed, "The outcomes are of the items %d and %d.", src.Item, dst.Item)
	case src.Outcome == Stored || dst.Outcome == Sent:
		return problem.New(problem.Disputed, "An agent signed the other side's outcome of item %d.", src.Item)
	case dst.Outcome != Stored:
		return nil
	case src.Outcome != Sent:
		return problem.New(problem.Disputed, "The destination signed that item %d is stored; the source signed %q.", dst.Item, src.Outcome)
	case src.Size != dst.Size:
		return problem.New(problem.Disputed, "The two agents signed different sizes of item %d.", dst.Item)
	case src.Digest != dst.Digest:
		return problem.New(problem.Disputed, "The two agents signed different digests of item %d.", dst.Item)
	}
	return nil
}
