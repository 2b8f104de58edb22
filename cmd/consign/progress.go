package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/consign-transfer/consign/broker/api"
)

// plainEvery is how often a line is printed where there is no terminal.
const plainEvery = 10 * time.Second

// rateMemory is how far back the measured rate looks.
const rateMemory = 15 * time.Second

// mostLeft is the longest time left that is said: beyond it a rate is a pause.
const mostLeft = 100 * time.Hour

// A gauge turns looks at a transfer into text. It is honest: there is no rate before bytes
// have moved between two looks, and no time left before there is a rate and the
// source was listed to its end.
type gauge struct {
	marks []mark // oldest first, at most rateMemory back
	last  api.Transfer
}

// A mark is how far a transfer was at one moment.
type mark struct {
	at    time.Time
	bytes int64
}

// look takes note of t.
func (g *gauge) look(t api.Transfer, now time.Time) {
	if n := len(g.marks); n > 0 && t.BytesMoved < g.marks[n-1].bytes {
		g.marks = nil // a running batch was taken back: what was measured means nothing any more
	}
	g.last = t
	g.marks = append(g.marks, mark{now, t.BytesMoved})
	for len(g.marks) > 2 && now.Sub(g.marks[0].at) > rateMemory {
		g.marks = g.marks[1:]
	}
}

// rate returns bytes a second, or 0 if it is not known.
func (g *gauge) rate() float64 {
	if len(g.marks) < 2 {
		return 0
	}
	a, b := g.marks[0], g.marks[len(g.marks)-1]
	if !b.at.After(a.at) {
		return 0
	}
	return float64(b.bytes-a.bytes) / b.at.Sub(a.at).Seconds()
}

// left returns the time until the end, and whether it can be said: not of what hardly moves.
func (g *gauge) left() (time.Duration, bool) {
	rate, rest := g.rate(), g.last.Bytes-g.last.BytesMoved
	if !g.last.Planned || rate < 1 || rest <= 0 || float64(rest)/rate > mostLeft.Seconds() {
		return 0, false
	}
	return time.Duration(float64(rest) / rate * float64(time.Second)).Round(time.Second), true
}

// text is one line without the bar.
func (g *gauge) text() string {
	t, more := g.last, ""
	if !t.Planned {
		more = "+" // the listing goes on
	}
	parts := []string{
		fmt.Sprintf("%s / %s%s", bytesText(t.BytesMoved), bytesText(t.Bytes), more),
		fmt.Sprintf("%d/%d%s objects", t.ItemsDone, t.Items, more),
	}
	if r := g.rate(); r >= 1 {
		parts = append(parts, bytesText(int64(r))+"/s")
	}
	if d, ok := g.left(); ok {
		parts = append(parts, d.String()+" left")
	}
	if t.Waiting != "" {
		parts = append(parts, "waiting: "+printable(t.Waiting))
	}
	return strings.Join(parts, ", ")
}

// A meter shows a transfer on standard error while it is waited for: a bar on a
// terminal, one plain line every plainEvery elsewhere.
type meter struct {
	a     *app
	mu    sync.Mutex // guards gauge, which the bar reads on a goroutine of its own
	gauge gauge
	plain time.Time // when the last plain line was printed
	began time.Time
	bars  *mpb.Progress
	bar   *mpb.Bar

	denied int64 // number of the last denial that was said
}

// newMeter returns a meter that shows nothing yet. Close must be called.
func newMeter(a *app) *meter {
	m := &meter{a: a, began: a.now(), plain: a.now()}
	if w, ok := a.width(); ok {
		m.bars = mpb.New(mpb.WithOutput(a.err), mpb.WithWidth(max(10, w/4)))
		m.bar = m.bars.New(0, mpb.BarStyle(), mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			m.mu.Lock()
			defer m.mu.Unlock()
			return printable(m.gauge.text())
		})))
	}
	return m
}

// Show takes a look at t.
func (m *meter) Show(t api.Transfer) {
	now := m.a.now()
	m.mu.Lock()
	m.gauge.look(t, now)
	text := m.gauge.text()
	m.mu.Unlock()
	for _, d := range t.Denials {
		if d.Seq > m.denied {
			m.denied = d.Seq
			m.say("denied: " + deniedText(d) + "\nhint: " + printable(d.Remedy))
		}
	}
	if m.bar != nil {
		m.bar.SetTotal(max(t.Bytes, 1), false)
		m.bar.SetCurrent(min(t.BytesMoved, max(t.Bytes, 1)-1))
		return
	}
	if now.Sub(m.plain) >= plainEvery {
		m.plain = now
		m.a.note("%s: %s", t.State, text)
	}
}

// say writes lines for people, above the bar if there is one.
func (m *meter) say(text string) {
	if m.bars == nil {
		m.a.note("%s", text)
		return
	}
	_, _ = m.bars.Write([]byte(text + "\n")) // to a terminal, as the bar is
}

// Close ends the bar and leaves it on the screen.
func (m *meter) Close() {
	if m.bar != nil {
		m.bar.Abort(false)
		m.bars.Wait()
	}
}

// summary writes what became of t for people.
func (m *meter) summary(w io.Writer, t api.Transfer) {
	took := m.a.now().Sub(m.began)
	if t.Finished != nil {
		took = t.Finished.Sub(t.Created)
	}
	fmt.Fprintf(w, "%s: %s in %s", printable(string(t.State)), bytesText(t.BytesMoved), took.Round(100*time.Millisecond))
	if s := took.Seconds(); s > 0.1 && t.BytesMoved > 0 {
		fmt.Fprintf(w, ", %s/s", bytesText(int64(float64(t.BytesMoved)/s)))
	}
	fmt.Fprintf(w, "; %s\n", printable(outcomesText(t)))
}
