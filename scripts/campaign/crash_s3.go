package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/cmd/localnet/stores"
	"github.com/consign-transfer/consign/token"
)

// A bucketKill is one run of the crash campaign over buckets.
type bucketKill struct {
	Run      int     `json:"run"`
	At       float64 `json:"at"` // share of the object that had come in when the destination was killed
	Down     string  `json:"down"`
	Seconds  float64 `json:"seconds"`
	State    string  `json:"state"`
	Held     int64   `json:"bytes_verified_at_kill"` // what its journal said was verified and in the store
	Again    int64   `json:"bytes_again"`            // that crossed the wire more than once
	Verified int64   `json:"verified_bytes_again"`   // of those that were verified
	Uploads  string  `json:"uploads_left"`
	Files    int     `json:"upload_files_left"`
	PeakMiB  float64 `json:"peak_rss_mib"` // of the destination, over all lives so far
	Problems string  `json:"problems,omitempty"`
}

// A bucketWorld is a world whose containers are buckets.
type bucketWorld struct {
	*world
	src, dst bucket
}

// newBucketWorld starts two servers of S3 and a world over one bucket in each.
func (b *bench) newBucketWorld(ctx context.Context) (*bucketWorld, error) {
	w := &bucketWorld{}
	secrets := filepath.Join(b.dir, "secrets")
	var sides [2]localnet.Export
	for i, side := range []struct{ kind, name string }{{"versitygw", "src"}, {b.to, "dst"}} {
		s, err := b.serve(ctx, side.kind, side.name)
		if err != nil {
			return nil, err
		}
		made, err := newBucket(ctx, s, side.name)
		if err != nil {
			return nil, err
		}
		st, err := stores.S3At(s, secrets, side.name, "")
		if err != nil {
			return nil, err
		}
		sides[i] = localnet.Export{Store: st}
		*[]*bucket{&w.src, &w.dst}[i] = made
	}
	var err error
	w.world, err = b.newWorldOf(ctx, sides[0], sides[1], settings{})
	return w, err
}

// crashBuckets copies one object from bucket to bucket again and again and kills the destination in the middle.
func crashBuckets(ctx context.Context, b *bench) error {
	w, err := b.newBucketWorld(ctx)
	if err != nil {
		return err
	}
	if err := w.src.fill(ctx, "object", b.seed, int64(b.size)); err != nil {
		return err
	}
	if err := w.calmBuckets(ctx); err != nil {
		return err
	}
	broken, verified := 0, int64(0)
	for i := 1; i <= b.runs; i++ {
		k, err := w.killOnce(ctx, i, b.rand.Float64()*1.05)
		if err != nil {
			k.Problems = err.Error()
			broken++
		}
		verified += k.Held
		if err := b.report(k); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	fmt.Fprintf(b.out, "%d runs, %d broken, %.1f%% verified when killed\n", b.runs, broken, 100*float64(verified)/float64(b.size)/float64(b.runs))
	if broken > 0 {
		return errBroken
	}
	if verified == 0 {
		return errors.New("nothing was verified at any kill, so that nothing was proven: kill later, or take a larger object")
	}
	return nil
}

// calmBuckets copies the object once in peace.
func (w *bucketWorld) calmBuckets(ctx context.Context) error {
	started := time.Now()
	id, err := w.order(ctx, "north:/src/object", "south:/dst/calm")
	if err != nil {
		return err
	}
	t, err := w.await(ctx, id)
	if err != nil {
		return err
	}
	if t.State != api.Complete {
		return fmt.Errorf("a copy in peace ended %s", t.State)
	}
	took := time.Since(started)
	fmt.Fprintf(w.out, "in peace: %.1f s, %.0f MB/s\n", took.Seconds(), float64(w.size)/1e6/took.Seconds())
	return w.dst.remove(ctx, "calm")
}

// awaitShare waits until a share of the object has left the source since before. What is above 1 is a moment after the last
// byte, when the destination publishes: up to a second for 0.05.
func (w *bucketWorld) awaitShare(ctx context.Context, share, before float64) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		now, err := moved(ctx, w.source.Proc, `direction="out"`)
		if err != nil {
			return 0, err
		}
		got := (now - before) / float64(w.size)
		if got >= min(share, 1) {
			pass(ctx, time.Duration(max(0, share-1)*20*float64(time.Second)))
			return got, nil
		}
		select {
		case <-ctx.Done():
			return got, fmt.Errorf("waiting for %.0f%% to be sent, last seen %.0f%%: %w", 100*share, 100*got, ctx.Err())
		case <-tick.C:
		}
	}
}

// killOnce orders a copy, kills the destination when a share of it has been sent, and proves what came of it.
func (w *bucketWorld) killOnce(ctx context.Context, i int, share float64) (bucketKill, error) {
	down := time.Duration(w.rand.IntN(2000)) * time.Millisecond
	k := bucketKill{Run: i, Down: down.String()}
	sent := func() (float64, error) {
		return moved(ctx, w.source.Proc, `direction="out"`)
	}
	before, err := sent()
	if err != nil {
		return k, err
	}
	started := time.Now()
	name := fmt.Sprintf("run-%d", i)
	id, err := w.order(ctx, "north:/src/object", "south:/dst/"+name)
	if err != nil {
		return k, err
	}
	if k.At, err = w.awaitShare(ctx, share, before); err != nil {
		return k, err
	}
	if err := w.destination.Kill(); err != nil {
		return k, err
	}
	if k.Held, err = held(w.destination.State, int64(w.size)); err != nil {
		return k, err
	}
	pass(ctx, down)
	if err := w.destination.Start(ctx); err != nil {
		return k, err
	}
	t, err := w.await(ctx, id)
	k.State, k.Seconds = string(t.State), time.Since(started).Seconds()
	if err != nil {
		return k, err
	}
	after, err := sent()
	if err != nil {
		return k, err
	}
	fresh, err := moved(ctx, w.destination.Proc, `direction="in"`)
	if err != nil {
		return k, err
	}
	k.Again = int64(after-before) - int64(w.size)
	k.Verified = max(0, int64(fresh)-(int64(w.size)-k.Held))
	return k, w.proveBuckets(ctx, &k, id, name)
}

// proveBuckets checks every promise of the run and frees the space.
func (w *bucketWorld) proveBuckets(ctx context.Context, k *bucketKill, id, name string) (err error) {
	if k.State != string(api.Complete) {
		return fmt.Errorf("the transfer ended %s", k.State)
	}
	defer func() { err = errors.Join(err, w.dst.remove(ctx, name)) }()
	if err := w.dst.same(ctx, name, w.seed, int64(w.size)); err != nil {
		return err
	}
	if err := w.verify(ctx, id); err != nil {
		return err
	}
	if k.Verified > 0 {
		return fmt.Errorf("%d bytes that were verified and in the store came in again", k.Verified)
	}
	if err := w.noUploads(ctx, k); err != nil {
		return err
	}
	if k.PeakMiB > maxResident>>20 {
		return fmt.Errorf("the destination took %.0f MiB of memory", k.PeakMiB)
	}
	return nil
}

// noUploads stops the destination, lets its janitor run by hand, and looks for what is left of uploads with the server's own
// listing and in its own folders.
func (w *bucketWorld) noUploads(ctx context.Context, k *bucketKill) error {
	if err := w.destination.Stop(); err != nil {
		return err
	}
	k.PeakMiB = float64(w.destination.Peak()) / (1 << 20)
	if _, err := w.net.Run(ctx, w.destination.Config, "agent", "gc", "-o", "json"); err != nil {
		return err
	}
	keys, listed, err := w.dst.uploads(ctx)
	if err != nil {
		return err
	}
	k.Uploads = "not listed by this server"
	if listed {
		k.Uploads = fmt.Sprint(len(keys))
	}
	if k.Files, err = uploadFiles(w.dst.Dir); err != nil {
		return err
	}
	if len(keys) > 0 || k.Files > 0 {
		return fmt.Errorf("%d uploads and %d of their files are left", len(keys), k.Files)
	}
	return w.destination.Start(ctx)
}

// uploadFiles counts the files in the folders where versitygw keeps the parts of uploads.
func uploadFiles(dir string) (int, error) {
	n := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.Type().IsRegular() && strings.Contains(path, string(filepath.Separator)+"multipart"+string(filepath.Separator)) {
			n++
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("looking for parts: %w", err)
	}
	return n, nil
}

// Kinds of journal records (agent/batch.go): that a chunk, or a part with its first chunk and how many it has, is staged; and that
// an item begins anew.
const (
	chunkRecord  = 4
	forgetRecord = 7
	partRecord   = 14
)

// held reads how many bytes of the only item the journals of a dead agent claim.
func held(state string, size int64) (n int64, err error) {
	copied, err := os.MkdirTemp("", "consign-journals-")
	if err != nil {
		return 0, fmt.Errorf("making room for journals: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(copied)) }()
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(state, "batches"))); err != nil {
		return 0, fmt.Errorf("copying the journals: %w", err)
	}
	dir, err := disk.Open(copied)
	if err != nil {
		return 0, fmt.Errorf("opening the journals: %w", err)
	}
	defer dir.Close()
	boot, err := journal.BootID()
	if err != nil {
		return 0, fmt.Errorf("reading the boot id: %w", err)
	}
	files, err := os.ReadDir(copied)
	if err != nil {
		return 0, fmt.Errorf("listing the journals: %w", err)
	}
	var total int64
	for _, f := range files {
		chunks := map[uint64]bool{}
		j, err := journal.Open(dir, f.Name(), boot, func(r journal.Record) error {
			switch {
			case r.Kind == chunkRecord && len(r.Data) >= 10:
				chunks[binary.BigEndian.Uint64(r.Data[2:10])] = true
			case r.Kind == partRecord && len(r.Data) >= 14:
				first := binary.BigEndian.Uint64(r.Data[2:10])
				for c := range uint64(binary.BigEndian.Uint32(r.Data[10:14])) {
					chunks[first+c] = true
				}
			case r.Kind == forgetRecord:
				clear(chunks)
			}
			return nil
		})
		if err != nil {
			return 0, fmt.Errorf("reading a journal: %w", err)
		}
		if err := j.Close(); err != nil {
			return 0, fmt.Errorf("reading a journal: %w", err)
		}
		for c := range chunks {
			total += min(token.ChunkSize, size-int64(c)*token.ChunkSize)
		}
	}
	return total, nil
}
