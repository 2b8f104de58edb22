package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/consign-transfer/consign/agent/disk"
)

// freshSuffix names the file that a journal is written anew in. One that is left
// behind by a crash is removed when the journal is opened.
const freshSuffix = ".new"

// Open recovers the journal name in dir and calls fn with each record that
// counts, in order. fn owns the record's data. An error of fn ends Open and is
// returned; the file is then as it was. A tail that is torn or does not count is cut off before Open returns.
// The errors are fs.ErrNotExist; ErrCorrupt if the file is not a journal; fn's; or the disk's.
//
// A file whose creation was cut short by a crash is an empty journal.
func Open(dir disk.FS, name, bootID string, fn func(Record) error) (*Journal, error) {
	if len(bootID) > maxBootID {
		return nil, fmt.Errorf("opening journal %q: boot id of %d bytes", name, len(bootID))
	}
	f, err := dir.OpenFile(name, disk.Write)
	if err != nil {
		return nil, fmt.Errorf("opening journal %q: %w", name, err)
	}
	j, err := recoverFile(dir, f, name, bootID, fn)
	if err != nil {
		return nil, fmt.Errorf("opening journal %q: %w", name, err)
	}
	return j, nil
}

// readOnly calls fn with each record of the journal name that would count if it was opened now, and changes nothing.
func readOnly(dir disk.FS, name, bootID string, fn func(Record) error) error {
	f, err := dir.OpenFile(name, disk.Read)
	if err != nil {
		return err
	}
	defer f.Close()
	s, err := scan(f)
	if err != nil || s.unborn {
		return err
	}
	end := s.upto
	if s.boot == bootID && bootID != "" {
		end = s.end
	}
	return replay(f, end, fn)
}

// recoverFile owns f, and closes it if it fails.
func recoverFile(dir disk.FS, f disk.File, name, bootID string, fn func(Record) error) (*Journal, error) {
	if err := removeFile(dir, name+freshSuffix); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s, err := scan(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	j := &Journal{file: f, boot: bootID}
	if s.unborn {
		if err := j.restart(dir); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return j, nil
	}
	counted := s.upto
	if s.boot == bootID && bootID != "" {
		counted = s.end
	}
	if err := replay(f, counted, fn); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if s.last > counted {
		// Records behind the mark do not count, but the mark itself stands behind
		// them: cutting would lose it. Write the file anew instead.
		return rewrite(dir, f, name, bootID, counted)
	}
	if err := j.resume(s, bootID); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return j, nil
}

// restart makes an empty journal of a file whose creation was cut short.
func (j *Journal) restart(dir disk.FS) error {
	if err := j.file.Truncate(0); err != nil {
		return err
	}
	if err := j.begin(); err != nil {
		return err
	}
	return dir.Sync()
}

// resume goes on behind the last good record, with a mark of this boot.
func (j *Journal) resume(s scanned, bootID string) error {
	size, err := j.file.Stat()
	if err != nil {
		return err
	}
	if size.Size > s.end {
		if err := j.file.Truncate(s.end); err != nil {
			return err
		}
	}
	j.end, j.last, j.safe, j.marked, j.want = s.end, s.end, s.safe, s.upto, s.upto
	if s.boot == bootID {
		return nil
	}
	// All that is left counts; the mark tells a successor in this boot to believe
	// what is appended from here on.
	if err := j.write(appendMark(nil, j.end, s.upto, bootID)); err != nil {
		return err
	}
	return j.file.Sync()
}

// scanned is what one pass over a file found.
type scanned struct {
	end    int64  // behind the last good record
	last   int64  // behind the last good record that is not a mark
	upto   int64  // of the last mark
	boot   string // of the last mark
	safe   int64  // behind the last mark
	unborn bool   // the file ends before its first mark
}

// scan finds the longest prefix of good records.
func scan(f disk.File) (scanned, error) {
	st, err := f.Stat()
	if err != nil {
		return scanned{}, err
	}
	head := make([]byte, len(magic))
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return scanned{}, err
	}
	head = head[:n]
	s := scanned{end: int64(len(magic))}
	d := decoder{r: f, at: s.end, size: st.Size}
	for {
		at := d.at
		r, err := d.next()
		if errors.Is(err, errTorn) {
			break
		}
		if err != nil {
			return scanned{}, err
		}
		if r.Kind != markKind {
			s.last = d.at
		} else if upto, boot, ok := parseMark(r.Data, at); ok {
			s.upto, s.boot, s.safe = max(s.upto, upto), boot, d.at
		} else {
			break // a mark that we would not write
		}
		s.end = d.at
	}
	if s.upto == 0 || string(head) != magic {
		if st.Size > maxUnborn || s.upto != 0 || !tornHead(head) {
			return scanned{}, ErrCorrupt
		}
		return scanned{unborn: true}, nil
	}
	return s, nil
}

// maxUnborn is how long a file is at most before Create has returned.
const maxUnborn = int64(len(magic)) + headerSize + 8 + maxBootID

// tornHead reports whether head may be what a crash during Create left of the
// magic: a prefix of it, or zeros.
func tornHead(head []byte) bool {
	return strings.HasPrefix(magic, string(head)) || len(bytes.Trim(head, "\x00")) == 0
}

// parseMark returns what a mark at offset at says, and whether Commit could have written it.
func parseMark(data []byte, at int64) (upto int64, boot string, ok bool) {
	if len(data) < 8 || len(data) > 8+maxBootID {
		return 0, "", false
	}
	n := binary.LittleEndian.Uint64(data)
	if n < uint64(len(magic)) || n > uint64(at) {
		return 0, "", false
	}
	return int64(n), string(data[8:]), true
}

// replay calls fn with the caller's records before end.
func replay(f disk.File, end int64, fn func(Record) error) error {
	d := decoder{r: f, at: int64(len(magic)), size: end}
	for d.at < end {
		r, err := d.next()
		if errors.Is(err, errTorn) {
			return ErrCorrupt // a mark that points into a record
		}
		if err != nil {
			return err
		}
		if r.Kind == markKind {
			continue
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

// rewrite makes a new file of the records before end and puts it in f's place.
func rewrite(dir disk.FS, f disk.File, name, bootID string, end int64) (*Journal, error) {
	defer f.Close() // only read from
	return writeAnew(dir, name, bootID, func(add func(Record) error) error {
		return replay(f, end, add)
	})
}

// writeAnew replaces the journal name, as one change that survives any crash, by one
// that holds what fill adds.
func writeAnew(dir disk.FS, name, bootID string, fill func(add func(Record) error) error) (*Journal, error) {
	if err := removeFile(dir, name+freshSuffix); err != nil {
		return nil, err
	}
	j, err := Create(dir, name+freshSuffix, bootID)
	if err != nil {
		return nil, err
	}
	err = fill(func(r Record) error { return j.Append(r) })
	if err == nil {
		err = j.Commit(j.Mark())
	}
	if err == nil {
		err = dir.Rename(name+freshSuffix, name)
	}
	if err == nil {
		err = dir.Sync() // Durable from here.
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("writing journal %q anew: %w", name, err), j.Close())
	}
	return j, nil
}

func removeFile(dir disk.FS, name string) error {
	err := dir.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = dir.Sync()
	}
	if err != nil {
		return fmt.Errorf("removing journal %q: %w", name, err)
	}
	return nil
}

// errTorn ends the good prefix.
var errTorn = errors.New("torn record")

// A decoder reads records of a file of size bytes from at on.
type decoder struct {
	r    io.ReaderAt
	at   int64
	size int64
}

// next returns the record at d.at and moves behind it, or errTorn if there is none
// that is good. Nothing is allocated for a length that the file cannot hold.
func (d *decoder) next() (Record, error) {
	var head [headerSize]byte
	if d.size-d.at < headerSize {
		return Record{}, errTorn
	}
	if err := readFull(d.r, head[:], d.at); err != nil {
		return Record{}, tornOr(err)
	}
	n := int64(binary.LittleEndian.Uint32(head[:]))
	if n > MaxRecordSize || n > d.size-d.at-headerSize {
		return Record{}, errTorn
	}
	data := make([]byte, n)
	if err := readFull(d.r, data, d.at+headerSize); err != nil {
		return Record{}, tornOr(err)
	}
	sum := checksum(d.at, head[:5], data)
	if !bytes.Equal(head[5:], binary.LittleEndian.AppendUint32(nil, sum)) {
		return Record{}, errTorn
	}
	d.at += headerSize + n
	return Record{head[4], data}, nil
}

func tornOr(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errTorn
	}
	return err
}
