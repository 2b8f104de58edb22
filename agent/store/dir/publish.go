package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A job is one publication on its way.
type job struct {
	pub store.Publication
	out *store.Published
	st  disk.Stat // of the stage
	own bool      // linked before: our own work of an earlier try
}

func (j *job) fail(err error) {
	if j.out.Err == nil {
		j.out.Err = err
	}
}

// Publish implements store.Batch. The steps are those of the package's doc.
func (b *batch) Publish(ctx context.Context, pubs []store.Publication) []store.Published {
	outs := make([]store.Published, len(pubs))
	jobs := make([]*job, len(pubs))
	seen := map[int]bool{}
	for i := range pubs {
		jobs[i] = &job{pub: pubs[i], out: &outs[i]}
		if seen[pubs[i].Index] {
			jobs[i].fail(fmt.Errorf("publishing item %d: named twice", pubs[i].Index))
		}
		seen[pubs[i].Index] = true
	}
	whole := len(jobs) >= bulk
	steps := []func([]*job) []*job{
		func(js []*job) []*job { each(js, func(j *job) { b.prepare(j, whole) }); return good(js) },
		func(js []*job) []*job { b.settleStages(js, whole); return good(js) },
		b.link,
	}
	js := good(jobs)
	for _, step := range steps {
		if err := b.alive(ctx); err != nil {
			failAll(js, err)
			break
		}
		js = step(js)
	}
	for i := range outs {
		if outs[i].Err != nil {
			outs[i].Info, outs[i].Lost = store.Info{}, nil
		}
	}
	return outs
}

func good(js []*job) []*job {
	return slices.DeleteFunc(slices.Clone(js), func(j *job) bool { return j.out.Err != nil })
}

func failAll(js []*job, err error) {
	for _, j := range js {
		j.fail(err)
	}
}

// each calls f for every element, on up to four goroutines, and returns when all are done.
func each[T any](all []T, f func(T)) {
	var wg sync.WaitGroup
	next := make(chan T)
	for range min(workers, len(all)) {
		wg.Go(func() {
			for v := range next {
				f(v)
			}
		})
	}
	for _, v := range all {
		next <- v
	}
	close(next)
	wg.Wait()
}

// prepare seals a stage, gives it its attributes and, unless the whole file system will be
// synced, makes it durable.
func (b *batch) prepare(j *job, whole bool) {
	name := j.pub.Name
	if err := checkName(name); err != nil {
		j.fail(err)
		return
	}
	if err := b.lookAt(j); err != nil {
		j.fail(err)
		return
	}
	if j.own {
		return // durable since before it was linked
	}
	f, done, err := b.borrow(j)
	if err != nil {
		j.fail(writeError(err, name))
		return
	}
	if !f.seal() {
		j.fail(errors.Join(b.lost(j, errors.New("a part does not count")), done()))
		return
	}
	if err = setAttrs(f, j.pub.Attrs); err == nil && !whole {
		err = f.sync(disk.File.SyncAll)
	}
	if cerr := done(); err == nil {
		err = cerr
	}
	if err != nil {
		j.fail(writeError(err, name))
	}
}

// lookAt checks the stage of j and tells whether it was linked before. From here on nobody may
// write it.
func (b *batch) lookAt(j *job) error {
	b.mu.Lock()
	b.asked[j.pub.Index] = true
	b.mu.Unlock()
	st, err := b.dir.Lstat(strconv.Itoa(j.pub.Index))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return b.lost(j, err)
	case err != nil:
		return fmt.Errorf("publishing item %d: its stage: %w", j.pub.Index, err)
	case st.Type == disk.Regular && st.Size < j.pub.Size && st.Links == 1:
		return b.lost(j, fmt.Errorf("%d bytes of %d", st.Size, j.pub.Size))
	case st.Type != disk.Regular || st.Size != j.pub.Size:
		return fmt.Errorf("publishing item %d: its stage has %d bytes, not %d", j.pub.Index, st.Size, j.pub.Size)
	}
	j.st, j.own = st, st.Links > 1
	return nil
}

// lost is the outcome of an item whose stage is not there or not whole: what has its name, if
// anything has, is not this batch's work.
func (b *batch) lost(j *job, cause error) error {
	_, err := b.s.root.Lstat(string(j.pub.Name))
	switch {
	case err == nil, errors.Is(err, syscall.ENOTDIR):
		return problem.Wrap(cause, problem.Taken, "%q exists at the destination.", j.pub.Name)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("publishing item %d: %w: %w", j.pub.Index, store.ErrLost, cause)
	}
	return writeError(err, j.pub.Name)
}

// borrow returns the stage of j: the one that is open, or one of its own, sealed.
func (b *batch) borrow(j *job) (f *staged, done func() error, err error) {
	b.mu.Lock()
	f, known := b.files[j.pub.Index], b.unfinished[j.pub.Index]
	if f != nil {
		f.refs++
	}
	b.mu.Unlock()
	if f != nil {
		s := &stage{f: f}
		return f, s.Close, nil
	}
	file, err := b.dir.OpenFile(strconv.Itoa(j.pub.Index), disk.Read)
	if err != nil {
		return nil, nil, err
	}
	if known == nil {
		known = newProgress(j.pub.Item, false)
	}
	f = &staged{b: b, item: j.pub.Item, file: file, sealed: true, done: known}
	return f, f.release, nil
}

const (
	defaultMode = 0o644
	ownerReads  = 0o400 // always kept, so that a stage can be found and synced after a crash
)

// setAttrs sets what the file system may keep. What it refuses is found out by lost.
func setAttrs(f *staged, a store.Attrs) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if err := f.usable(); err != nil {
		return err
	}
	mode := uint32(defaultMode)
	if a.HasMode {
		mode = a.Mode & 0o777
	}
	err := f.file.SetMode(mode | ownerReads)
	if err == nil && !a.ModTime.IsZero() {
		err = f.file.SetTime(a.ModTime)
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// lost names the attributes that an object in the state st did not keep.
func lost(a store.Attrs, st disk.Stat) (names []string) {
	if a.HasMode && a.Mode != st.Mode {
		names = append(names, "mode")
	}
	if !a.ModTime.IsZero() && !a.ModTime.Truncate(time.Microsecond).Equal(st.MTime.Truncate(time.Microsecond)) {
		names = append(names, "mtime")
	}
	if a.ContentType != "" {
		names = append(names, "type")
	}
	for key := range a.Meta {
		names = append(names, "meta:"+key)
	}
	slices.Sort(names)
	return names
}

// settleStages returns when data, attributes and names of all stages are durable.
func (b *batch) settleStages(js []*job, whole bool) {
	fresh := slices.ContainsFunc(js, func(j *job) bool { return !j.own })
	if !fresh {
		return
	}
	if whole {
		err := b.syncAll()
		if !errors.Is(err, errors.ErrUnsupported) {
			if err != nil {
				failAll(js, writeError(err, "the batch"))
			}
			return
		}
		each(js, b.syncStage)
	}
	if err := b.syncDir(); err != nil {
		failAll(js, writeError(err, "the batch"))
	}
}

// syncStage makes one stage durable where the whole file system cannot be synced.
func (b *batch) syncStage(j *job) {
	if j.own {
		return
	}
	f, done, err := b.borrow(j)
	if err == nil {
		err = errors.Join(f.sync(disk.File.SyncAll), done())
	}
	if err != nil {
		j.fail(writeError(err, j.pub.Name))
	}
}

// syncAll syncs the whole file system. A failure may be of any stage's data, so it condemns
// all that are not published.
func (b *batch) syncAll() error {
	b.syncing.Lock()
	defer b.syncing.Unlock()
	b.mu.Lock()
	made, dead := b.made, b.dead
	b.mu.Unlock()
	if dead != nil {
		return dead
	}
	err := b.dir.SyncAll()
	if err == nil {
		b.synced = made
		return nil
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	b.kill(err)
	return errors.Join(err, b.removeStages())
}

// removeStages removes every stage that is not linked, so that no successor believes it.
func (b *batch) removeStages() error {
	var names []string
	if err := b.dir.Names(func(name string) bool { names = append(names, name); return true }); err != nil {
		return err
	}
	for _, name := range names {
		st, err := b.dir.Lstat(name)
		if err == nil && st.Links == 1 {
			err = b.s.scrap(context.Background(), b.dir, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// link gives every stage its name and makes the names durable.
func (b *batch) link(js []*job) []*job {
	groups := map[string][]*job{}
	for _, j := range js {
		parent, _ := split(j.pub.Name)
		groups[parent] = append(groups[parent], j)
	}
	parents := make([]string, 0, len(groups))
	above := map[string]bool{}
	for parent, group := range groups {
		if err := b.s.ensureDir(parent); err != nil {
			failAll(group, err)
			continue
		}
		parents = append(parents, parent)
		for dir := parent; dir != "."; {
			dir, _ = split(token.ObjectName(dir))
			above[dir] = true
		}
	}
	whole := len(parents)+len(above) >= manyDirs
	each(parents, func(parent string) { b.linkGroup(parent, groups[parent], whole) })
	js = good(js)
	if len(js) == 0 {
		return js
	}
	if err := b.settleDirs(parents, above, whole); err != nil {
		b.kill(err)
		failAll(js, writeError(err, "the batch"))
		return nil
	}
	return js // Durable from here.
}

// linkGroup links the jobs of one directory. The directory stays open from before
// the links to after its sync, so that no failure is missed.
func (b *batch) linkGroup(parent string, group []*job, whole bool) {
	d, err := b.s.root.OpenDir(parent)
	if err != nil {
		failAll(group, writeError(err, token.ObjectName(parent)))
		return
	}
	defer d.Close()
	for _, j := range group {
		_, base := split(j.pub.Name)
		if err := b.linkOne(d, base, j); err != nil {
			j.fail(err)
		}
	}
	if len(good(group)) == 0 {
		return
	}
	if !whole {
		if err := d.Sync(); err != nil {
			b.kill(err)
			failAll(group, writeError(err, token.ObjectName(parent)))
			return
		}
	}
	if err := b.stillThere(d, parent); err != nil {
		failAll(group, err)
	}
}

func (b *batch) linkOne(d disk.FS, base string, j *job) error {
	name := j.pub.Name
	if !j.own && b.s.looks.Load() {
		if _, err := d.Lstat(base); err == nil {
			return problem.New(problem.Taken, "%q exists at the destination.", name)
		}
	}
	if !j.own {
		err := b.dir.Link(strconv.Itoa(j.pub.Index), d, base)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return writeError(err, name)
		}
	}
	st, err := d.Lstat(base)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return problem.Wrap(err, problem.Taken, "%q was published and has been moved or removed since.", name)
	case err != nil:
		return writeError(err, name)
	case !st.Same(j.st):
		return problem.New(problem.Taken, "%q exists at the destination.", name)
	}
	j.out.Info, j.out.Lost = b.s.info(name, st), lost(j.pub.Attrs, st)
	return nil
}

// stillThere checks that the path leads to the directory that was written: somebody may have moved
// it meanwhile.
func (b *batch) stillThere(d disk.FS, path string) error {
	st, err := d.Stat()
	if err != nil {
		return writeError(err, token.ObjectName(path))
	}
	now, err := b.s.root.Lstat(path)
	if path == "." {
		now, err = b.s.root.Stat()
	}
	if err != nil || !now.Same(st) {
		return problem.Wrap(err, problem.Unwritable, "The directory %q was moved while it was written.", path)
	}
	return nil
}

// settleDirs makes the ancestors of the parents durable, innermost first. They may be
// of our own making, of a concurrent batch's or of a killed predecessor's, so all are synced.
func (b *batch) settleDirs(parents []string, above map[string]bool, whole bool) error {
	for _, parent := range parents {
		delete(above, parent) // synced with its links
	}
	if whole {
		err := b.syncAll()
		if !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		for _, parent := range parents {
			above[parent] = true
		}
	}
	dirs := make([]string, 0, len(above))
	for dir := range above {
		dirs = append(dirs, dir)
	}
	slices.SortFunc(dirs, func(x, y string) int { return depth(y) - depth(x) })
	for _, dir := range dirs {
		if err := b.s.syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// depth orders "." above all.
func depth(dir string) int {
	if dir == "." {
		return 0
	}
	return 1 + strings.Count(dir, "/")
}
