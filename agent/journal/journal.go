// Package journal is an append-only file of records that survives crashes: the
// state of unfinished work, of undelivered receipts and of what was spent.
//
// A file is the magic, then records:
//
//	| length u32 | kind u8 | CRC32C u32 | data, length bytes |   little endian
//
// The checksum covers the record's offset (u64), length, kind and data, so a
// record that was left behind by another one does not pass at a wrong place.
// Kind 0 is the journal's own: a mark, whose data is the offset up to which all
// is durable (u64) and the id of the boot that it was written in.
//
// It guarantees that recovery returns the longest prefix of good records that
// count. Within one boot of the machine every record that was written counts. After
// another boot only those before the last mark's offset do, because a record
// may claim data that was never synced. Hence the protocol, data first:
//
//	m := j.Mark()         // every record so far claims only data that was written
//	sync the data files   // ... and now durable
//	err := j.Commit(m)    // durable from here: these records count after any crash
//
// After a failed sync the journal is poisoned: every later call returns
// ErrPoisoned, and what was not committed is cut off, so that a successor in the
// same boot does not believe it either. A sync is never tried twice.
//
// It bounds a record to MaxRecordSize; the size of a file is the caller's to bound. Matchable
// errors: ErrPoisoned, ErrCorrupt, ErrTooLarge, and those of agent/disk, such as
// fs.ErrExist and fs.ErrNotExist. It does not lock a file against a second process.
package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/consign-transfer/consign/agent/disk"
)

// MaxRecordSize bounds the data of one record, bytes: a manifest and its statements fit.
const MaxRecordSize = 8 << 20

const (
	magic      = "consignj\x00\x00\x00\x01" // the last byte is the version
	headerSize = 4 + 1 + 4
	markKind   = 0
	maxBootID  = 64
)

var (
	// ErrPoisoned means that an earlier sync failed: nothing more can be promised.
	ErrPoisoned = errors.New("the journal is poisoned by a failed sync")
	// ErrCorrupt means that the file is not a journal.
	ErrCorrupt = errors.New("not a journal")
	// ErrTooLarge means that a record's data exceeds MaxRecordSize.
	ErrTooLarge = errors.New("record is too large")
)

// A Record is one entry. Kind is the caller's, from 1.
type Record struct {
	Kind byte
	Data []byte
}

// A Mark is a position in a journal: all records before it.
type Mark int64

// A Journal is an open file of records. Its methods may be called concurrently.
type Journal struct {
	file disk.File
	boot string

	mu     sync.Mutex // guards all below; never held during a sync
	end    int64      // where the next record goes
	last   int64      // behind the last record that is not a mark; last <= end
	marked int64      // records before it count after any crash
	safe   int64      // behind the last mark that was synced; marked <= safe <= end
	want   int64      // the highest mark that a waiting Commit asked for
	err    error      // why the journal is poisoned
	flight *flight    // the sync that is running; one at a time, so that none misses another's failure
	next   *flight    // the one that begins when it ends; nil if flight is
}

// A flight is one sync that several callers of Commit share.
type flight struct {
	done chan struct{}
	err  error // valid once done is closed
}

// Create makes the journal name in dir, which must not exist (fs.ErrExist), and
// returns when it is durable. The boot id is BootID's.
func Create(dir disk.FS, name, bootID string) (*Journal, error) {
	if len(bootID) > maxBootID {
		return nil, fmt.Errorf("creating journal %q: boot id of %d bytes", name, len(bootID))
	}
	f, err := dir.OpenFile(name, disk.Create)
	if err != nil {
		return nil, fmt.Errorf("creating journal %q: %w", name, err)
	}
	j := &Journal{file: f, boot: bootID}
	if err = j.begin(); err == nil {
		err = dir.Sync() // Durable from here.
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("creating journal %q: %w", name, err), f.Close())
	}
	return j, nil
}

// begin writes magic and first mark to an empty file.
func (j *Journal) begin() error {
	head := []byte(magic)
	at := int64(len(head))
	head = appendMark(head, at, at, j.boot)
	if _, err := j.file.WriteAt(head, 0); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	j.end, j.safe = int64(len(head)), int64(len(head))
	j.marked, j.want, j.last = at, at, at
	return nil
}

// Append writes recs behind one another with one write, or none of them. They
// are not synced: see Commit. If an append fails for lack of space the journal
// stays usable.
func (j *Journal) Append(recs ...Record) error {
	size := 0
	for _, r := range recs {
		if r.Kind == markKind {
			panic("journal: internal error: record of kind 0")
		}
		if len(r.Data) > MaxRecordSize {
			return fmt.Errorf("appending %d bytes: %w", len(r.Data), ErrTooLarge)
		}
		size += headerSize + len(r.Data)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	buf := make([]byte, 0, size)
	for _, r := range recs {
		buf = appendRecord(buf, j.end+int64(len(buf)), r)
	}
	if err := j.write(buf); err != nil {
		return err
	}
	j.last = j.end
	return nil
}

// write appends buf. The caller holds mu.
func (j *Journal) write(buf []byte) error {
	if j.err != nil {
		return j.err
	}
	if _, err := j.file.WriteAt(buf, j.end); err != nil {
		// Part of it may have arrived; a later shorter record must not end in it.
		if cut := j.file.Truncate(j.end); cut != nil {
			j.poison(cut)
		}
		return fmt.Errorf("appending to a journal: %w", err)
	}
	j.end += int64(len(buf))
	return nil
}

// poison makes every later call fail. The caller holds mu.
func (j *Journal) poison(cause error) {
	if j.err == nil {
		j.err = fmt.Errorf("%w: %w", ErrPoisoned, cause)
	}
}

// Mark returns the position after the last record that was appended. As long as none is, a Commit of
// it that has succeeded once costs nothing: nobody makes the journal grow by asking again.
func (j *Journal) Mark() Mark {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Mark(j.last)
}

// Size returns the length of the file, bytes.
func (j *Journal) Size() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.end
}

// Commit returns when every record before m counts after any crash. The caller
// says by it that all data which those records claim is durable already,
// whoever appended them. Concurrent callers share syncs. It blocks on the disk and
// takes no context, because a sync cannot be called back.
func (j *Journal) Commit(m Mark) error {
	j.mu.Lock()
	if j.err != nil {
		defer j.mu.Unlock()
		return j.err
	}
	if int64(m) > j.end {
		defer j.mu.Unlock()
		panic("journal: internal error: a mark beyond the end")
	}
	if int64(m) <= j.marked {
		defer j.mu.Unlock()
		return nil
	}
	j.want = max(j.want, int64(m))
	if j.flight == nil {
		f := &flight{done: make(chan struct{})}
		j.flight = f
		j.mu.Unlock()
		j.sync(f)
		return f.err
	}
	// A running sync may have begun before our records: wait for the one after it.
	f := j.next
	if f == nil {
		f = &flight{done: make(chan struct{})}
		j.next = f
		running := j.flight
		j.mu.Unlock()
		<-running.done
		j.sync(f)
		return f.err
	}
	j.mu.Unlock()
	<-f.done
	return f.err
}

// sync appends a mark for all that is wanted, makes it durable and ends f.
func (j *Journal) sync(f *flight) {
	j.mu.Lock()
	upto := j.want
	err := j.write(appendMark(nil, j.end, upto, j.boot))
	safe := j.end
	j.mu.Unlock()
	if err == nil {
		if err = j.file.Sync(); err != nil {
			err = j.condemn(err)
		}
	}
	j.mu.Lock()
	if err == nil {
		j.marked, j.safe = upto, safe // Durable from here.
	}
	j.flight, j.next = j.next, nil
	j.mu.Unlock()
	f.err = err
	close(f.done)
}

// condemn poisons the journal after a failed sync and cuts off what no crash
// would have spared: the cache may show it to a successor although the disk lacks it.
func (j *Journal) condemn(cause error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.poison(cause)
	if err := j.file.Truncate(j.safe); err != nil {
		j.err = fmt.Errorf("%w, and cutting it off: %w", j.err, err)
	}
	return j.err
}

// Close releases the file. What was not committed stays as far as it got.
func (j *Journal) Close() error {
	if err := j.file.Close(); err != nil {
		return fmt.Errorf("closing a journal: %w", err)
	}
	return nil
}

// Remove removes the journal name from dir, durably. One that does not exist is fine.
func Remove(dir disk.FS, name string) error {
	return removeFile(dir, name)
}

func appendRecord(buf []byte, at int64, r Record) []byte {
	var head [headerSize]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(r.Data)))
	head[4] = r.Kind
	binary.LittleEndian.PutUint32(head[5:], checksum(at, head[:5], r.Data))
	return append(append(buf, head[:]...), r.Data...)
}

func appendMark(buf []byte, at, upto int64, boot string) []byte {
	data := binary.LittleEndian.AppendUint64(nil, uint64(upto))
	return appendRecord(buf, at, Record{markKind, append(data, boot...)})
}

func checksum(at int64, head, data []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli) // made once by the library
	var pos [8]byte
	binary.LittleEndian.PutUint64(pos[:], uint64(at))
	sum := crc32.Update(0, table, pos[:])
	sum = crc32.Update(sum, table, head)
	return crc32.Update(sum, table, data)
}

// readFull reads exactly len(p) bytes at off, or returns io.ErrUnexpectedEOF.
func readFull(f io.ReaderAt, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
