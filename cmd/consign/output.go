package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/consign-transfer/consign/token/problem"
)

// A format is how results are printed.
type format string

const (
	table     format = "table" // for people
	jsonOne   format = "json"  // one JSON value
	jsonLines format = "jsonl" // one JSON value a line
)

func (f *format) String() string { return string(*f) }

// Type is the placeholder in help texts.
func (f *format) Type() string { return "format" }

// Set is the flag's parser.
func (f *format) Set(s string) error {
	switch format(s) {
	case table, jsonOne, jsonLines:
		*f = format(s)
		return nil
	}
	return fmt.Errorf("the output format must be table, json or jsonl, and %s is none of them", quoted(s))
}

// printJSON writes v to standard output: indented as one value for json, on one line for jsonl.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	if a.format == jsonOne {
		enc.SetIndent("", "  ")
	}
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

// A printer writes a list of values one by one, so that a list of any length
// is never held. Close must be called when all went well.
type printer[T any] struct {
	a     *app
	n     int
	tab   *tabwriter.Writer
	row   func(T) []string
	flush int // rows after which a table is flushed, so that columns are aligned and memory is flat
}

// newPrinter returns a printer whose table has the given heading and rows.
func newPrinter[T any](a *app, heading []string, row func(T) []string) *printer[T] {
	p := &printer[T]{a: a, row: row, flush: 1000}
	if a.format == table {
		p.tab = tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
		if len(heading) > 0 {
			fmt.Fprintln(p.tab, strings.Join(heading, "\t"))
		}
	}
	return p
}

// Print writes one value.
func (p *printer[T]) Print(v T) error {
	p.n++
	switch p.a.format {
	case jsonLines:
		return p.a.printJSON(v)
	case jsonOne:
		data, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("writing the result: %w", err)
		}
		before := ",\n  "
		if p.n == 1 {
			before = "[\n  "
		}
		_, err = fmt.Fprintf(p.a.out, "%s%s", before, data)
		return err
	case table:
	}
	cells := p.row(v)
	for i, c := range cells {
		cells[i] = printable(c) // whatever it is: a broker that means ill has written most of it
	}
	if _, err := fmt.Fprintln(p.tab, strings.Join(cells, "\t")); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	if p.n%p.flush == 0 {
		return p.tab.Flush()
	}
	return nil
}

// Close ends the list.
func (p *printer[T]) Close() error {
	var err error
	switch {
	case p.a.format == table:
		err = p.tab.Flush()
	case p.a.format == jsonOne && p.n == 0:
		_, err = fmt.Fprintln(p.a.out, "[]")
	case p.a.format == jsonOne:
		_, err = fmt.Fprintln(p.a.out, "\n]")
	}
	if err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

// note writes one line for people to standard error.
func (a *app) note(format string, args ...any) {
	fmt.Fprintln(a.err, printableLines(fmt.Sprintf(format, args...)))
}

// width returns the columns of standard error if it is a terminal, and whether it is one.
func (a *app) width() (int, bool) {
	f, ok := a.err.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil || w <= 0 {
		return 80, true
	}
	return w, true
}

// coloured reports whether w may be sent colours.
func (a *app) coloured(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && !a.noColor && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

// printable returns s as it is if a terminal can show it on one line, and quoted if it
// holds anything else: a name must not be able to write to the screen.
func printable(s string) string {
	if !utf8.ValidString(s) {
		return strconv.Quote(s)
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return strconv.Quote(s)
		}
	}
	return s
}

// printableLines is printable for each line of an error of ours that has several.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = printable(line)
	}
	return strings.Join(lines, "\n")
}

// quoted returns s in quotation marks, shortened, for an error.
func quoted(s string) string {
	const most = 80
	if len(s) <= most {
		return strconv.Quote(s)
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strconv.Quote(s[:cut]) + "… (" + strconv.Itoa(len(s)) + " bytes)"
}

// counted writes a number with its noun.
func counted(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.FormatInt(n, 10) + " " + noun + "s"
}

// bytesText writes a size for people, in IEC units.
func bytesText(n int64) string {
	const unit = 1024
	if n < unit {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, suffix := float64(n), ""
	for _, s := range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		if v < unit-0.05 { // or it would be written as 1024.0 of the smaller unit
			break
		}
		v, suffix = v/unit, s
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + " " + suffix
}

// timeText writes an instant for people, in UTC.
func timeText(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// spanText writes a duration as parseSpan reads it: whole days as 7d, whole hours as 6h.
func spanText(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// parseSpan reads a duration: what time.ParseDuration reads, and whole days and weeks as 7d and 2w.
func parseSpan(s string) (time.Duration, error) {
	for suffix, unit := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if digits, ok := strings.CutSuffix(s, suffix); ok {
			n, err := strconv.ParseUint(digits, 10, 16)
			if err == nil {
				return time.Duration(n) * unit, nil
			}
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, problem.New(problem.Usage, "%s is not a duration; write it as 90s, 15m, 6h, 7d or 2w", quoted(s))
	}
	return d, nil
}

// parseSize reads a number of bytes: digits with an optional suffix k, M, G, T (powers of
// 1000) or KiB, MiB, GiB, TiB (powers of 1024).
func parseSize(s string) (int64, error) {
	units := []struct {
		suffix string
		size   int64
	}{
		{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
		{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}, {"", 1},
	}
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > (1<<62)/u.size {
			break
		}
		return n * u.size, nil
	}
	return 0, problem.New(problem.Usage, "%s is not a size; write it as 1048576, 100MB or 100MiB", quoted(s))
}
