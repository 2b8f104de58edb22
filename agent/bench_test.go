package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/dir"
	"github.com/consign-transfer/consign/token"
)

// dirs makes both stores of a world directories of the real disk and returns that of the source.
func (w *world) dirs() string {
	w.t.Helper()
	var roots []string
	for _, n := range []*node{w.src, w.dst} {
		root := w.t.TempDir()
		roots = append(roots, root)
		fsys, err := disk.Open(root)
		if err != nil {
			w.t.Fatal(err)
		}
		st := dir.Open(fsys, time.Now)
		w.t.Cleanup(func() { st.Close() })
		n.conf.Exports[0].Store = st
	}
	return roots[0]
}

// write makes a file of the source and pins it. It must not be fresh, or it could not be pinned.
func (w *world) write(root, name string, size int) store.Info {
	w.t.Helper()
	file := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(file, make([]byte, size), 0o644); err != nil {
		w.t.Fatal(err)
	}
	info, err := w.src.conf.Exports[0].Store.Stat(w.t.Context(), token.ObjectName(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return info
}

func (w *world) timed(b *testing.B, hash token.ValueHash, infos []store.Info) {
	w.src.conf.hooks.quick, w.dst.conf.hooks.quick = false, false
	w.src.start()
	w.dst.start()
	var total int64
	for _, in := range infos {
		total += in.Size
	}
	b.ResetTimer()
	for n := range b.N {
		o := w.order()
		o.To.Name = token.ObjectName(fmt.Sprint("out", n))
		s := w.spec(o, 1, infos...)
		for i := range s.items {
			s.items[i].Hash = hash
		}
		_, dst := w.run(s)
		checkAll(b, dst, token.Stored)
	}
	b.ReportMetric(float64(total)*float64(b.N)/1e6/b.Elapsed().Seconds(), "MB/s")
	b.ReportMetric(float64(len(infos)*b.N)/b.Elapsed().Seconds(), "objects/s")
}

// BenchmarkLarge copies one object between two directories, hashed, journalled and durable.
func BenchmarkLarge(b *testing.B) {
	w := newWorld(b)
	root := w.dirs()
	w.timed(b, "", []store.Info{w.write(root, "in/big", 512<<20)})
}

// BenchmarkHashed is BenchmarkLarge with a value hash, for which lanes take turns.
func BenchmarkHashed(b *testing.B) {
	for _, h := range token.ValueHashes() {
		b.Run(string(h), func(b *testing.B) {
			w := newWorld(b)
			root := w.dirs()
			w.timed(b, h, []store.Info{w.write(root, "in/big", 512<<20)})
		})
	}
}

// BenchmarkSmall copies a full batch of small objects between two directories.
func BenchmarkSmall(b *testing.B) {
	w := newWorld(b)
	root := w.dirs()
	var infos []store.Info
	for i := range token.MaxItems {
		infos = append(infos, w.write(root, fmt.Sprintf("in/%d/%d", i%16, i), 4096))
	}
	w.timed(b, "", infos)
}
