package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/ledger/verify"
	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/cmd/localnet/stores"
	"github.com/consign-transfer/consign/token"
)

// stopper is a server of realstores.
type stopper interface{ Stop() error }

// serve registers a server's end with the test.
func serve[S stopper](t *testing.T, s S, err error) S {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("ending a server: %v", err)
		}
	})
	return s
}

// A chain is two providers with containers in five stores of different kinds, and the tree that goes through all of them.
type chain struct {
	*world
	first *realstores.S3 // behind south:/s3/
	final string         // the folder behind south:/final/
	files map[string]token.Digest
}

// newChain starts the servers and the world: north has the folder src, rclone's S3 and GCS; south has versitygw's S3, Azure and
// a folder.
func newChain(t *testing.T) *chain {
	t.Helper()
	binary, err := exec.LookPath("consign")
	if err != nil {
		t.Fatal(err)
	}
	ctx, dir := t.Context(), t.TempDir()
	secrets := filepath.Join(dir, "secrets")
	c := &chain{world: &world{t: t, src: filepath.Join(dir, "src")}, final: filepath.Join(dir, "final"), files: map[string]token.Digest{}}
	s3, err := realstores.Versitygw(ctx, filepath.Join(dir, "versitygw"))
	c.first = serve(t, s3, err)
	other, err := realstores.RcloneS3(ctx, filepath.Join(dir, "rclone"))
	serve(t, other, err)
	blobs, err := realstores.Azurite(ctx, filepath.Join(dir, "azurite"))
	serve(t, blobs, err)
	cloud, err := realstores.GCSEmulator(ctx, filepath.Join(dir, "gcs"))
	serve(t, cloud, err)
	c.net, err = localnet.New(filepath.Join(dir), binary)
	c.must(err)
	t.Cleanup(func() {
		if err := c.net.Close(); err != nil {
			t.Errorf("ending the processes: %v", err)
		}
	})
	for _, d := range []string{c.src, c.final} {
		c.must(os.Mkdir(d, 0o700))
	}
	st := map[string]localnet.Store{}
	for name, open := range map[string]func() (localnet.Store, error){
		"s3":    func() (localnet.Store, error) { return stores.S3(ctx, s3, secrets, "first", "deep/er") },
		"other": func() (localnet.Store, error) { return stores.S3(ctx, other, secrets, "second", "") },
		"blobs": func() (localnet.Store, error) { return stores.Azure(ctx, blobs, secrets, "third", "in") },
		"cloud": func() (localnet.Store, error) { return stores.GCS(ctx, cloud, "fourth", "in") },
	} {
		st[name], err = open()
		c.must(err)
	}
	c.join(
		[]localnet.Export{{Container: "src", Dir: c.src, Read: true}, remote("other", st["other"]), remote("cloud", st["cloud"])},
		[]localnet.Export{remote("s3", st["s3"]), remote("blobs", st["blobs"]), {Container: "final", Dir: c.final, Read: true, Create: true}},
	)
	return c
}

func remote(name token.Container, st localnet.Store) localnet.Export {
	return localnet.Export{Container: name, Store: st, Read: true, Create: true}
}

// join makes the parties of a world whose two agents have these exports, and a subscriber.
func (w *world) join(north, south []localnet.Export) {
	w.t.Helper()
	var err error
	for _, p := range []token.Provider{"north", "south"} {
		w.must(w.net.AddProvider(p))
	}
	w.broker, err = w.net.AddBroker(w.t.Context(), "hub")
	w.must(err)
	w.north, err = w.net.AddAgent("north", "one", north, []*localnet.Broker{w.broker})
	w.must(err)
	w.south, err = w.net.AddAgent("south", "one", south, []*localnet.Broker{w.broker})
	w.must(err)
	w.config, err = w.net.AddSubscriber("alice", w.broker, "north", "south")
	w.must(err)
	w.t.Cleanup(func() {
		if w.t.Failed() {
			for _, p := range w.procs() {
				w.t.Logf("the end of the log of %s:\n%s", p.Name, p.Tail(25))
			}
		}
	})
}

// odd are names that stores, protocols and shells treat each in their own way.
var odd = []string{
	"with space", "plus+plus", "per%cent", "%41 is no A", "hash#mark", "quest?ion", "amp&er=sand", "quote'\"", "uml-äöüß", "日本語", "emoji-🙂", "tilde~",
	"semi;colon", "at@", "col:on", "star*", "[brackets]", "{braces}", "comma,", "pipe|", "less<more>", "$dollar", "bang!", "caret^", "`tick`",
	".hidden", "-dash", "UPPER", "upper", "two..dots", "x.tar.gz", strings.Repeat("long", 50),
}

// stamp is the time of every file, to the nanosecond.
var stamp = time.Date(2019, 8, 7, 6, 5, 4, 321_000_987, time.UTC)

// plant makes the tree at the source.
func (c *chain) plant(big int64) {
	c.t.Helper()
	for i := range 250 {
		c.file(fmt.Sprintf("tree/%02d/file-%03d", i%13, i), bytes.Repeat([]byte{byte(i)}, i*37))
	}
	for i, name := range odd {
		c.file("tree/odd/"+name, []byte(fmt.Sprintf("%d %s\n", i, name)))
	}
	c.file("tree/none", nil)
	c.file("tree/one", []byte{1})
	c.file("tree/edge-1", bytes.Repeat([]byte("a"), token.ChunkSize-1))
	c.file("tree/edge", bytes.Repeat([]byte("b"), token.ChunkSize))
	c.file("tree/edge+1", bytes.Repeat([]byte("c"), token.ChunkSize+1))
	c.must(fillRandom(c.t.Context(), filepath.Join(c.src, "tree", "big"), big))
	c.must(os.Mkdir(filepath.Join(c.src, "tree", "empty"), 0o700))
	c.must(filepath.WalkDir(filepath.Join(c.src, "tree"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(filepath.Join(c.src, "tree"), path)
		if err != nil {
			return err
		}
		digest, _, err := digestOf(path)
		c.files[filepath.ToSlash(rel)] = digest
		mode := os.FileMode(0o640)
		if strings.HasPrefix(rel, "odd") {
			mode = 0o755
		}
		return errors.Join(err, os.Chmod(path, mode), os.Chtimes(path, stamp, stamp))
	}))
}

// adopt puts an object with metadata that no file has into the first bucket, as another program would.
func (c *chain) adopt(name string, content []byte, head ...string) {
	c.t.Helper()
	_, err := c.first.Do(c.t.Context(), http.MethodPut, "/first/deep/er/tree/"+name, content, head...)
	c.must(err)
	file := filepath.Join(c.t.TempDir(), "adopted")
	c.must(os.WriteFile(file, content, 0o600))
	c.files[name], _, err = digestOf(file)
	c.must(err)
}

// hop copies the tree from one container into another, and wants every item stored with its digest, receipts that verify, and
// exactly these attributes lost: names of attributes to how many items lost them.
func (c *chain) hop(from, to string, lost map[string]int) {
	c.t.Helper()
	r := c.consign(0, "cp", "-r", "--wait", "-o", "json", from+"tree", to)
	id := transferOf(c.t, r.Stdout)
	shown := c.show(id)
	if shown.State != api.Complete || shown.Outcomes[token.Stored] != int64(len(c.files)) {
		c.t.Errorf("%s to %s: got %s with %v, want complete with %d stored", from, to, shown.State, shown.Outcomes, len(c.files))
	}
	d := &demo{net: c.net, config: c.config}
	items, err := d.outcomes(c.t.Context(), &ordered{t: api.Transfer{ID: id}})
	c.must(err)
	for name, want := range c.files {
		if got := items["tree/"+name]; got != want {
			c.t.Errorf("%s to %s: %s: got %q, want %q", from, to, name, got, want)
		}
	}
	file := filepath.Join(c.t.TempDir(), "receipts.jsonl")
	c.consign(0, "receipt", "get", string(id), "-f", file)
	c.consign(0, "receipt", "verify", file)
	if got := lostIn(c.t, file); !equalCounts(got, lost) {
		c.t.Errorf("%s to %s: attributes lost: got %v, want %v", from, to, got, lost)
	}
}

// lostIn counts the attributes that the destination's receipts say were lost.
func lostIn(t *testing.T, bundle string) map[string]int {
	t.Helper()
	lost := map[string]int{}
	eachOutcome(t, bundle, func(_ api.SignedReceipt, o token.Outcome) {
		for _, name := range o.Lost {
			lost[name]++
		}
	})
	return lost
}

// eachOutcome calls fn for each outcome line of a bundle.
func eachOutcome(t *testing.T, bundle string, fn func(api.SignedReceipt, token.Outcome)) {
	t.Helper()
	f, err := os.Open(bundle)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := verify.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for {
		batch, err := r.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, receipt := range batch.Receipts {
			for line := range strings.Lines(receipt.Lines) {
				o, err := token.ParseOutcome([]byte(strings.TrimSuffix(line, "\n")))
				if err != nil {
					t.Fatal(err)
				}
				fn(receipt, o)
			}
		}
	}
}

func equalCounts(a, b map[string]int) bool {
	if len(a) != len(b) {
		return false
	}
	for k, n := range a {
		if b[k] != n {
			return false
		}
	}
	return true
}

// TestChainOfStores sends one tree through five stores of four kinds, dir, S3, another S3, Azure, GCS and back to dir, and wants
// what arrives to be what left: every byte, name, time and mode, and of other metadata all but what is stated.
func TestChainOfStores(t *testing.T) {
	t.Parallel()
	const big = 40<<20 + 12345
	c := newChain(t)
	c.plant(big)
	start(c.world)
	fromDir := len(c.files)
	c.hop("north:/src/", "south:/s3/", nil)
	c.adopt("typed.json", []byte("{}\n"), "Content-Type", "application/json", "X-Amz-Meta-Colour", "blue", "X-Amz-Meta-Two-Words", "x")
	c.hop("south:/s3/", "north:/other/", nil)
	c.hop("north:/other/", "south:/blobs/", map[string]int{"meta:two-words": 1})
	c.hop("south:/blobs/", "north:/cloud/", nil)
	c.hop("north:/cloud/", "south:/final/", map[string]int{"meta:colour": 1, "type": 1})

	claimed := map[string]token.Digest{}
	for name, digest := range c.files {
		if name != "typed.json" {
			claimed[name] = digest
		}
	}
	c.must(os.Remove(filepath.Join(c.final, "tree", "typed.json")))
	got, err := compareTrees(t.Context(), filepath.Join(c.src, "tree"), filepath.Join(c.final, "tree"), claimed)
	c.must(err)
	if int(got.files) != fromDir {
		t.Errorf("files at the end: got %d, want %d", got.files, fromDir)
	}
	c.sameAttributes()
	if entries, err := os.ReadDir(filepath.Join(c.final, "tree", "empty")); err != nil || len(entries) != 0 {
		t.Errorf("the empty folder at the end: got %v, %v", entries, err)
	}
	c.nothingLeft()
}

// sameAttributes wants that time and mode of every file went through all stores.
func (c *chain) sameAttributes() {
	c.t.Helper()
	wrong := 0
	for name := range c.files {
		if name == "typed.json" {
			continue
		}
		want, err := os.Stat(filepath.Join(c.src, "tree", name))
		c.must(err)
		got, err := os.Stat(filepath.Join(c.final, "tree", name))
		c.must(err)
		if !got.ModTime().Equal(want.ModTime()) || got.Mode() != want.Mode() {
			if wrong++; wrong <= 3 {
				c.t.Errorf("%s: got %v %v, want %v %v", name, got.ModTime().UTC(), got.Mode(), want.ModTime().UTC(), want.Mode())
			}
		}
	}
	if wrong > 3 {
		c.t.Errorf("files with another time or mode: %d", wrong)
	}
}

// nothingLeft stops the agents and wants that what they collect is nothing, or what only time removes; and that of rclone, which
// lists no uploads, it is said where that is known from.
func (c *chain) nothingLeft() {
	c.t.Helper()
	for _, a := range []*localnet.Agent{c.north, c.south} {
		c.must(a.Stop())
		r, err := c.net.Run(c.t.Context(), a.Config, "agent", "gc", "-o", "json")
		c.must(err)
		for _, verdict := range []string{"live", "orphan", "unknown", "foreign"} {
			if strings.Contains(r.Stdout, `"verdict": "`+verdict+`"`) {
				c.t.Errorf("left over at %s: got %s", a.Name, r.Stdout)
				break
			}
		}
	}
	r := c.consignAt(c.north, 0, "agent", "gc")
	if n := strings.Count(r.Stderr, "works from the journal"); n != 1 || !strings.Contains(r.Stderr, "other: the store cannot list") {
		c.t.Errorf("what gc says of stores that list nothing: got %q, want it of rclone alone", r.Stderr)
	}
}

// TestStoresThatLie wants that an agent refuses stores that replace what exists, gofakes3 and bare fake-gcs-server, with a
// sentence; and that with allow_unsafe_store it starts, warns, and says so in each receipt.
func TestStoresThatLie(t *testing.T) {
	t.Parallel()
	binary, err := exec.LookPath("consign")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s3, err := realstores.GoFakeS3(t.Context(), filepath.Join(dir, "gofakes3"))
	serve(t, s3, err)
	cloud, err := realstores.FakeGCS(t.Context(), filepath.Join(dir, "gcs"))
	serve(t, cloud, err)
	w := &world{t: t, src: filepath.Join(dir, "src")}
	w.must(os.Mkdir(w.src, 0o700))
	w.file("small", []byte("small\n"))
	w.must(fillRandom(t.Context(), filepath.Join(w.src, "large"), 3<<20))
	w.net, err = localnet.New(dir, binary)
	w.must(err)
	t.Cleanup(func() {
		if err := w.net.Close(); err != nil {
			t.Errorf("ending the processes: %v", err)
		}
	})
	liars := map[string]localnet.Store{}
	liars["s3"], err = stores.S3(t.Context(), s3, filepath.Join(dir, "secrets"), "bucket", "")
	w.must(err)
	liars["gcs"], err = stores.GCS(t.Context(), cloud, "bucket", "")
	w.must(err)
	allowed := remote("dst", liars["gcs"])
	allowed.Unsafe = true
	w.join([]localnet.Export{{Container: "src", Dir: w.src, Read: true}}, []localnet.Export{allowed})

	for name, st := range liars {
		refused, err := w.net.AddAgent("south", name, []localnet.Export{remote("dst", st)}, []*localnet.Broker{w.broker})
		w.must(err)
		if err := refused.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "consign: ") || !strings.Contains(err.Error(), "The store at the container") {
			t.Errorf("%s: starting on a store that lies: got %v, want it refused with a sentence", name, err)
		}
		if r := w.consignAt(refused, 1, "agent", "probe"); !strings.Contains(r.Stdout, " refused ") {
			t.Errorf("%s: probing: got %q, %q; want it refused", name, r.Stdout, r.Stderr)
		}
	}
	if r := w.consignAt(w.south, 1, "agent", "probe"); !strings.Contains(r.Stdout, " unsafe, and allowed ") || !strings.Contains(r.Stderr, "(store-not-exclusive)") {
		t.Errorf("probing what is allowed: got %q, %q", r.Stdout, r.Stderr)
	}
	start(w)
	if log, err := os.ReadFile(w.south.Log); err != nil || !bytes.Contains(log, []byte(`"level":"warn"`)) || !bytes.Contains(log, []byte("create_only: agent")) {
		t.Errorf("the log of the agent that was allowed: got %s, %v; want a warning", log, err)
	}
	w.storedUnsafely("small")
	w.storedUnsafely("large")
	w.consign(6, "cp", "--wait", "north:/src/small", "south:/dst/large")
}

// storedUnsafely copies an object and wants that its receipts say that only the agent looked.
func (w *world) storedUnsafely(name string) {
	w.t.Helper()
	id := transferOf(w.t, w.consign(0, "cp", "--wait", "-o", "json", "north:/src/"+name, "south:/dst/").Stdout)
	file := filepath.Join(w.t.TempDir(), "receipts.jsonl")
	w.consign(0, "receipt", "get", string(id), "-f", file)
	r := w.consign(0, "receipt", "verify", file)
	if !strings.Contains(r.Stdout, "the agent alone looked") {
		w.t.Errorf("%s: what verify says: got %q, want that the agent alone looked", name, r.Stdout)
	}
	var guards []string
	eachOutcome(w.t, file, func(s api.SignedReceipt, _ token.Outcome) { guards = append(guards, guardOf(w.t, s)) })
	if slices.Sort(guards); !slices.Equal(guards, []string{"", "agent"}) {
		w.t.Errorf("%s: create_only of the receipts: got %q, want none and agent", name, guards)
	}
}

// transferOf reads the id that cp printed.
func transferOf(t *testing.T, text string) token.TransferID {
	t.Helper()
	var tr api.Transfer
	if err := json.Unmarshal([]byte(text), &tr); err != nil {
		t.Fatal(err)
	}
	return tr.ID
}

// guardOf reads create_only of a receipt.
func guardOf(t *testing.T, s api.SignedReceipt) string {
	t.Helper()
	parts := strings.Split(s.JWS, ".")
	if len(parts) != 3 {
		t.Fatalf("the receipt is not of three parts")
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var r token.Receipt
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	return string(r.CreateBy)
}
