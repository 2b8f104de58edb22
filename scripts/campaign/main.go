// Command campaign runs the long tests of Consign with real processes: kills at
// random moments, races for one name, scale, and certificates and capabilities that change or
// end while bytes are moving. Each subcommand is bounded,
// prints what it counted as one JSON line a run and a summary, and exits with a status other than 0
// if a promise was broken.
//
//	campaign crash  [-runs 20] [-size 4GiB]   kill one of source, destination, broker; restart; prove
//	campaign race   [-rounds 1000]            one destination name, two transfers; one broker, two brokers
//	campaign scale  [-files 100000] [-big 8GiB] memory of broker and agents
//	campaign rotate [-rotations 100] [-size 10GiB] [-rate 16MiB] every party's certificate, again and again, under one transfer
//	campaign revoke [-runs 30] [-rate 8MiB]   pause, cancel, deny: how long bytes still come
//	campaign short  [-size 600MiB] [-rate 2MiB] capabilities of one minute under a transfer of five
//	campaign adopt  [-files 1000000] [-idle 60s] memory of the broker, and how long others wait, while objects are adopted
//
// With -store s3 the containers are buckets of real servers on loopback, which `make servers` installs:
//
//	campaign crash -store s3 [-to rclone] [-runs 30] [-size 4GiB]   from bucket to bucket; the destination is killed
//	campaign race  -store s3 [-rounds 1000]                         two agents on one bucket want the same key
//	campaign scale -store s3 [-files 100000] [-each 16KiB] [-repeat 2]   folder to bucket, beside rclone copy
//
// The random seed is printed; -seed repeats its choices.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
	"github.com/consign-transfer/consign/cmd/localnet"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "campaign:", err)
		os.Exit(1)
	}
}

// options are what every campaign knows.
type options struct {
	bin       string
	dir       string // scratch; removed at the end unless keep
	keep      bool
	seed      uint64
	runs      int
	rounds    int
	rotations int
	files     int
	size      size
	rate      size // bytes a second
	big       size
	store     string // dir or s3
	to        string // the destination's server, for crash on s3
	each      size
	repeat    int
	idle      time.Duration
}

// defaults are the options of a campaign that depend on which it is.
func defaults(campaign string) options {
	o := options{size: 4 << 30, big: 8 << 30, each: 16 << 10, runs: 20, files: 100_000}
	switch campaign {
	case "rotate":
		o.size, o.rate = 10<<30, 16<<20
	case "revoke":
		o.size, o.rate, o.runs = 1<<30, 8<<20, 30
	case "adopt":
		o.files = 1_000_000
	case "short":
		o.size, o.rate = 600<<20, 2<<20
	}
	return o
}

// errBroken is the end of a campaign that saw a broken promise.
var errBroken = errors.New("a promise was broken")

func run(ctx context.Context, args []string, out io.Writer) error {
	campaigns := map[string]map[string]func(context.Context, *bench) error{
		"crash":  {"dir": crash, "s3": crashBuckets},
		"race":   {"dir": race, "s3": raceBuckets},
		"scale":  {"dir": scale, "s3": scaleBuckets},
		"rotate": {"dir": rotate},
		"revoke": {"dir": revoke},
		"short":  {"dir": short},
		"adopt":  {"dir": adopt},
	}
	if len(args) == 0 || campaigns[args[0]] == nil {
		return errors.New("say which: crash, race, scale, rotate, revoke, short or adopt")
	}
	o := defaults(args[0])
	fs := flag.NewFlagSet("campaign "+args[0], flag.ContinueOnError)
	fs.StringVar(&o.bin, "bin", "bin/consign", "the consign `program`")
	fs.StringVar(&o.dir, "dir", "", "a `folder` for scratch (default: a new one in the system's)")
	fs.BoolVar(&o.keep, "keep", false, "keep the scratch folder")
	fs.Uint64Var(&o.seed, "seed", rand.Uint64(), "the random `seed`")
	fs.StringVar(&o.store, "store", "dir", "what the containers are in: dir or s3")
	fs.StringVar(&o.to, "to", "versitygw", "crash on s3: the destination's `server`, versitygw or rclone")
	fs.IntVar(&o.runs, "runs", o.runs, "crash, revoke: `number` of runs")
	fs.IntVar(&o.rotations, "rotations", 100, "rotate: `number` of certificates")
	fs.IntVar(&o.rounds, "rounds", 1000, "race: `number` of races of each kind")
	fs.IntVar(&o.files, "files", o.files, "scale: `number` of files of 4 KiB; adopt: of empty ones")
	fs.DurationVar(&o.idle, "idle", time.Minute, "adopt: `time` for which calls are measured before")
	fs.Var(&o.size, "size", "crash, rotate, revoke, short: `size` of the file")
	fs.Var(&o.rate, "rate", "rotate, revoke, short: `bytes` a second")
	fs.Var(&o.big, "big", "scale: `size` of the big file")
	fs.Var(&o.each, "each", "scale on s3: `size` of each file")
	fs.IntVar(&o.repeat, "repeat", 2, "scale on s3: `number` of repetitions, in alternating order")
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	campaign := campaigns[args[0]][o.store]
	if campaign == nil || o.to != "versitygw" && o.to != "rclone" {
		return errors.New("-store is dir, or s3 for crash, race and scale; -to is versitygw or rclone")
	}
	b, err := newBench(o, out)
	if err != nil {
		return err
	}
	err = campaign(ctx, b)
	return errors.Join(err, b.close())
}

// A bench is what a campaign works on: a network in a scratch folder, a source
// of chance, and a place to report to.
type bench struct {
	options
	net     *localnet.Net
	rand    *rand.Rand
	out     io.Writer
	servers []*realstores.S3
}

func newBench(o options, out io.Writer) (*bench, error) {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return nil, fmt.Errorf("locating the program: %w", err)
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "consign-campaign-"); err != nil {
			return nil, fmt.Errorf("making a scratch folder: %w", err)
		}
	}
	n, err := localnet.New(o.dir, bin)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "seed %d, scratch %s\n", o.seed, o.dir)
	return &bench{options: o, net: n, rand: rand.New(rand.NewPCG(o.seed, 1)), out: out}, nil //nolint:gosec // chance must be repeatable
}

func (b *bench) close() error {
	err := b.net.Close()
	for _, s := range b.servers {
		err = errors.Join(err, s.Stop())
	}
	if b.keep {
		return err
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}

// serve starts a server of S3; it ends with the bench.
func (b *bench) serve(ctx context.Context, kind, name string) (*realstores.S3, error) {
	start := realstores.Versitygw
	if kind == "rclone" {
		start = realstores.RcloneS3
	}
	s, err := start(ctx, filepath.Join(b.dir, "servers", name))
	if err != nil {
		return nil, err
	}
	b.servers = append(b.servers, s)
	return s, nil
}

// report prints v as one JSON line.
func (b *bench) report(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("reporting: %w", err)
	}
	_, err = fmt.Fprintf(b.out, "%s\n", line)
	return err
}

// A size is a number of bytes with an optional KiB, MiB or GiB behind it.
type size int64

func (s *size) String() string { return fmt.Sprint(int64(*s)) }

// Set implements flag.Value.
func (s *size) Set(text string) error {
	digits := strings.TrimRight(text, "GKMiB")
	n, err := strconv.ParseUint(digits, 10, 32)
	shift, ok := map[string]int{"": 0, "KiB": 10, "MiB": 20, "GiB": 30}[text[len(digits):]]
	if err != nil || !ok {
		return fmt.Errorf("%q is not a size such as 64MiB", text)
	}
	*s = size(n) << shift
	return nil
}
