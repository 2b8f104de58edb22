package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	bigName = "one-gibibyte"
	bigSize = 1 << 30 // bytes
	// spareSpace is what logs, journals and databases may take, in bytes.
	spareSpace = 256 << 20
	// smallDemo is the number of bytes below which the receiver is slowed down, so that there is a middle
	// in which it can be killed.
	smallDemo = 768 << 20
	// openFiles is how many descriptors a process of the demonstration may need.
	openFiles = 1024
)

// demoOptions are the flags of 'consign demo'.
type demoOptions struct {
	from string
	keep bool
	big  size
}

func (a *app) demoCommand() *cobra.Command {
	opt := demoOptions{big: bigSize}
	cmd := &cobra.Command{
		Use: "demo", Short: "Watch it work: two providers, a kill -9 in the middle, and proof at the end",
		Long: `Start a broker and the agents of two providers as real processes on this machine, order a recursive copy
of a folder and a large file, kill the receiving agent in the middle, start it again, and prove that
everything arrived. Everything but the folder itself, which is only read, is below one temporary
folder that is removed at the end.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context(), opt) },
	}
	cmd.Flags().StringVar(&opt.from, "from", "", "copy this `folder` (default: the source tree of the installed Go)")
	cmd.Flags().Var(&opt.big, "big", "the large file has this `size`")
	cmd.Flags().BoolVar(&opt.keep, "keep", false, "stay up at the end, until Ctrl-C, to try things")
	return cmd
}

// A demo is one run of the demonstration.
type demo struct {
	a     *app
	opt   demoOptions
	began time.Time
	step  int

	dir    string // everything is below
	net    *localnet.Net
	broker *localnet.Broker
	north  *localnet.Agent // the source
	south  *localnet.Agent // the destination
	other  *localnet.Agent // another valid agent of south, never started: its key is the thief's
	config string          // of the subscriber

	tree   census
	copies []*ordered
	stolen loot
}

// An ordered is one transfer of the demonstration.
type ordered struct {
	from, to    string // addresses
	source, dst string // folders
	t           api.Transfer
}

func (a *app) demo(ctx context.Context, opt demoOptions) (err error) {
	d := &demo{a: a, opt: opt, began: a.now()}
	if d.opt.from == "" {
		if d.opt.from, err = goSource(ctx); err != nil {
			return err
		}
	}
	if d.opt.from, err = filepath.Abs(d.opt.from); err != nil {
		return fmt.Errorf("locating the folder: %w", err)
	}
	if d.tree, err = count(ctx, d.opt.from); err != nil {
		return problem.Wrap(err, problem.Usage, "The folder %s cannot be read", quoted(d.opt.from))
	}
	if err := d.checkMachine(); err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "consign-demo-"); err != nil {
		return fmt.Errorf("making a temporary folder: %w", err)
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			d.tails()
		}
		err = errors.Join(err, d.leave())
	}()
	for _, chapter := range []func(context.Context) error{d.start, d.order, d.kill, d.resume, d.compare, d.audit, d.replay} {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	return d.close(ctx)
}

// goSource returns the source tree of the installed Go.
func goSource(ctx context.Context) (string, error) {
	none := &problem.Error{
		Code: problem.Usage, Detail: "There is no Go on this machine whose source tree could be copied",
		Remedy: "Name a folder with --from (make demo FROM=folder).",
	}
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		none.Cause = err
		return "", none
	}
	src := filepath.Join(strings.TrimSpace(string(bytes.TrimSpace(out))), "src")
	if st, err := os.Stat(src); err != nil || !st.IsDir() {
		none.Cause = err
		return "", none
	}
	return filepath.EvalSymlinks(src)
}

// checkMachine says before anything is made what this machine lacks.
func (d *demo) checkMachine() error {
	tmp := os.TempDir()
	var fs unix.Statfs_t
	if err := unix.Statfs(tmp, &fs); err != nil {
		return fmt.Errorf("looking at the space of %s: %w", tmp, err)
	}
	free := int64(fs.Bavail) * int64(fs.Bsize) //nolint:unconvert // its type differs between systems
	need := d.tree.space + 2*int64(d.opt.big) + spareSpace
	if free < need {
		return &problem.Error{
			Code:   problem.DiskFull,
			Detail: fmt.Sprintf("The demonstration needs %s in %s, and %s are free", bytesText(need), printable(tmp), bytesText(free)),
			Remedy: "Free space there, or set TMPDIR to a folder with more.",
		}
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("looking at the limit of open files: %w", err)
	}
	if lim.Cur < openFiles {
		return &problem.Error{
			Code:   problem.Usage,
			Detail: fmt.Sprintf("A process may open %d files here, and the demonstration needs %d", lim.Cur, openFiles),
			Remedy: fmt.Sprintf("Raise it with 'ulimit -n %d'.", openFiles),
		}
	}
	return nil
}

// say writes the next numbered paragraph.
func (d *demo) say(format string, args ...any) {
	d.step++
	d.tell(fmt.Sprintf("%2d. ", d.step), fmt.Sprintf(format, args...), 4)
}

// proof writes a line that something was proven, and how.
func (d *demo) proof(format string, args ...any) {
	mark := "ok"
	if d.a.coloured(d.a.out) {
		mark = "\x1b[32mok\x1b[0m"
	}
	d.tell("    "+mark+"  ", fmt.Sprintf(format, args...), 8)
}

// tell writes text after head, with a hanging indent.
func (d *demo) tell(head, text string, indent int) {
	const width = 80
	for _, line := range wrapWords(strings.Fields(text), width-indent) {
		fmt.Fprintln(d.a.out, head+line)
		head = strings.Repeat(" ", indent)
	}
}

// start makes the parties and starts them.
func (d *demo) start(ctx context.Context) error {
	d.say("Two storage providers, north and south, each with a certificate authority of its own, and a broker, hub, with a "+
		"third. None of them can name anybody in another's domain. Alice has an account at north and one at south. "+
		"Everything is in %s.", d.dir)
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("locating this program: %w", err)
	}
	if d.net, err = localnet.New(d.dir, binary); err != nil {
		return err
	}
	big, copies := filepath.Join(d.dir, "big"), filepath.Join(d.dir, "copies")
	for _, dir := range []string{big, copies} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("making a folder: %w", err)
		}
	}
	if err := fillRandom(ctx, filepath.Join(big, bigName), int64(d.opt.big)); err != nil {
		return err
	}
	for _, p := range []token.Provider{"north", "south"} {
		if err := d.net.AddProvider(p); err != nil {
			return err
		}
	}
	if d.broker, err = d.net.AddBroker(ctx, "hub"); err != nil {
		return err
	}
	if err := d.addAgents(big, copies); err != nil {
		return err
	}
	if d.config, err = d.net.AddSubscriber("alice", d.broker, "north", "south"); err != nil {
		return err
	}
	d.copies = []*ordered{
		{from: "north:/files/", to: "south:/copies/files", source: d.opt.from, dst: filepath.Join(copies, "files")},
		{from: "north:/big/", to: "south:/copies/big", source: big, dst: filepath.Join(copies, "big")},
	}
	for _, p := range []*localnet.Proc{d.broker.Proc, d.north.Proc, d.south.Proc} {
		if err := p.Start(ctx); err != nil {
			return err
		}
	}
	d.say("Three processes run: the broker (pid %d), the agent of north (pid %d), which exports %s for reading, and the agent of "+
		"south (pid %d), in whose container 'copies' objects may be created.",
		d.broker.PID(), d.north.PID(), d.opt.from, d.south.PID())
	return nil
}

func (d *demo) addAgents(big, copies string) error {
	brokers := []*localnet.Broker{d.broker}
	var err error
	d.north, err = d.net.AddAgent("north", "one", []localnet.Export{
		{Container: "files", Dir: d.opt.from, Read: true}, {Container: "big", Dir: big, Read: true},
	}, brokers)
	if err != nil {
		return err
	}
	exports := []localnet.Export{{Container: "copies", Dir: copies, Read: true, Create: true}}
	var slow []localnet.Setting
	if total := d.tree.bytes + int64(d.opt.big); total < smallDemo {
		slow = append(slow, localnet.Setting{Key: "rate", Value: max(total/4, 1<<20)})
	}
	if d.south, err = d.net.AddAgent("south", "one", exports, brokers, slow...); err != nil {
		return err
	}
	d.other, err = d.net.AddAgent("south", "two", exports, brokers)
	return err
}

// tails shows the end of each log, after a failure.
func (d *demo) tails() {
	const lines = 12
	for _, p := range d.procs() {
		if text := p.Tail(lines); text != "" {
			d.a.note("---- the last lines of %s", p.Name)
			d.a.note("%s", text)
		}
	}
}

func (d *demo) procs() []*localnet.Proc {
	var out []*localnet.Proc
	if d.broker != nil {
		out = append(out, d.broker.Proc)
	}
	for _, g := range []*localnet.Agent{d.north, d.south} {
		if g != nil {
			out = append(out, g.Proc)
		}
	}
	return out
}

// leave ends every process and removes the folder.
func (d *demo) leave() error {
	var err error
	if d.net != nil {
		err = d.net.Close()
	}
	if rmErr := removeAll(d.dir); rmErr != nil {
		err = errors.Join(err, fmt.Errorf("removing %s: %w", d.dir, rmErr))
	}
	return err
}

// close ends the story, at once or with --keep at Ctrl-C.
func (d *demo) close(ctx context.Context) error {
	took := d.a.now().Sub(d.began).Round(time.Second)
	if !d.opt.keep {
		d.say("That was %s. Now the processes are ended and %s is removed.", took, d.dir)
		return nil
	}
	d.say("That was %s. Everything stays up until Ctrl-C. In another terminal:", took)
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("locating this program: %w", err)
	}
	id := d.copies[1].t.ID
	fmt.Fprintf(d.a.out, `
      export CONSIGN_CONFIG=%s
      alias consign=%s
      consign ls -l north:/files/
      consign provider list
      consign transfer show %s --events
      consign cp --wait north:/big/%s south:/copies/again/
      consign cp --wait north:/big/%s south:/copies/again/     # the second time: taken
      consign receipt get %s -f receipts.jsonl && consign receipt verify receipts.jsonl
      tail -f %s

`, d.config, binary, id, bigName, bigName, id, d.south.Log)
	<-ctx.Done()
	d.a.note("ending")
	return nil
}
