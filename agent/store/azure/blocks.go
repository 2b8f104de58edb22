package azure

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/consign-transfer/consign/agent/store"
)

// The identifier of a block is 84 characters of base64, which stand for 63 bytes; the vendor takes up to 64, and wants all identifiers
// of one name to have one length. The characters are chosen so that the text itself can be read:
//
//	kind   1   'B': the batch is spelt out; 'H': it is not, because its id is longer than 73 characters or has others than A-Z a-z 0-9 '-'
//	batch 73   B: the batch's id with '+' for '-', then '/' up to the length
//	           H: SHA-256 of the origin in base64, then '/' up to the length
//	item   5   decimal; H: 00000
//	part   5   decimal
//
// An upload's ID is all of it but the part.
const (
	idSize    = 84
	batchSize = 73
	itemSize  = 5
	partDigit = 5
	maxItem   = 99_999
	hashSize  = 43 // base64 of SHA-256
)

// hashEnd is what follows the hash in an upload's ID.
const hashEnd = "//////////////////////////////" + "00000"

// uploadID is the ID of the upload that a stage is.
func uploadID(o store.Origin) string {
	cut := strings.LastIndexByte(string(o), '/')
	if cut > 0 {
		batch, item := string(o[:cut]), string(o[cut+1:])
		n, err := strconv.ParseUint(item, 10, 31)
		if err == nil && n <= maxItem && strconv.FormatUint(n, 10) == item && len(batch) <= batchSize && plain(batch) {
			return "B" + fill(strings.ReplaceAll(batch, "-", "+")) + fmt.Sprintf("%0*d", itemSize, n)
		}
	}
	sum := sha256.Sum256([]byte(o))
	return "H" + fill(base64.RawStdEncoding.EncodeToString(sum[:])) + strings.Repeat("0", itemSize)
}

// blockID is the identifier of a part's block.
func blockID(upload string, part int64) string { return upload + fmt.Sprintf("%0*d", partDigit, part) }

// parseBlock takes an identifier apart. ok is whether it is one that blockID makes.
func parseBlock(id string) (upload string, part int64, ok bool) {
	if len(id) != idSize || id[0] != 'B' && id[0] != 'H' {
		return "", 0, false
	}
	upload, digits := id[:idSize-partDigit], id[idSize-partDigit:]
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil || n >= maxBlocks {
		return "", 0, false
	}
	if id[0] == 'B' && uploadID(originOf(upload)) != upload || id[0] == 'H' && upload[1+hashSize:] != hashEnd {
		return "", 0, false
	}
	return upload, int64(n), true
}

// originOf is the stage that an upload's ID names, or empty where it cannot be told.
func originOf(upload string) store.Origin {
	if len(upload) != idSize-partDigit || upload[0] != 'B' {
		return ""
	}
	batch := strings.ReplaceAll(strings.TrimRight(upload[1:1+batchSize], "/"), "+", "-")
	n, err := strconv.ParseUint(upload[1+batchSize:], 10, 31)
	if err != nil || batch == "" || !plain(batch) {
		return ""
	}
	return store.OriginOf(store.BatchID(batch), int(n))
}

func fill(s string) string { return s + strings.Repeat("/", batchSize-len(s)) }

// plain reports whether s is of letters, digits and '-'.
func plain(s string) bool {
	for _, c := range []byte(s) {
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != ""
}
