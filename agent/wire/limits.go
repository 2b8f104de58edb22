package wire

import (
	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/token"
)

// Limits of what may be written and of what is read. Bytes unless the name says
// otherwise.
const (
	MaxCapability = token.MaxCapabilitySize
	MaxWant       = 16             // chunks asked for by one WantChunks
	MaxRun        = token.MaxItems // items asked for by one WantRun
	MaxItem       = token.MaxItems - 1
	MaxSmall      = chunk.Size // an item that WantRun may ask for
	MaxLanes      = 64         // what Hello may announce
	MaxSentence   = 256        // a sentence of Refused, and of a closed lane
	MaxCode       = 64
	MaxSoftware   = 64
	MaxNative     = 128
	MaxMetaPairs  = 64
	MaxMetaSize   = 8 << 10 // keys and values of user metadata together
	MaxMetaKey    = 255
	MaxMode       = 0o7777
	MaxType       = 255            // of a content type
	MaxOutcomes   = token.MaxItems // what End may count

	// ChunkHeadSize is the length of a Chunk frame before its content.
	ChunkHeadSize = headSize + 12
	// ValueSize is what follows the content of Chunk and Item.
	ValueSize = 32

	headSize = 4
	maxAttrs = 1 + 8 + 4 + 2 + MaxType + 1 + MaxMetaSize + 4*MaxMetaPairs
	idSize   = 16 + 8 // xfr, bat
)

// maxBody is the length of the longest body of a kind, 0 for an unknown one.
func maxBody(k Kind) int {
	switch k {
	case KindHello:
		return 2 + 2 + idSize + 32 + 32 + 2 + MaxCapability
	case KindWantChunks:
		return idSize + 2 + 2 + 8
	case KindWantRun:
		return idSize + 2 + 2*MaxRun
	case KindSeal:
		return idSize + 2
	case KindEnd:
		return idSize + 4 + 32
	case KindRefused:
		return 4 + 2 + MaxCode + 2 + MaxSentence
	case KindWelcome:
		return 2 + 2 + 2 + MaxSoftware
	case KindChunk:
		return 12
	case KindItem:
		return 2 + 4 + maxAttrs + 2 + MaxNative
	case KindItemRefused:
		return 2 + 4 + 2 + MaxCode + 2 + MaxSentence
	case KindSealed:
		return 8 + 32 + maxAttrs + 2 + MaxNative
	case KindPinned:
		return maxAttrs + 2 + MaxNative
	}
	return 0
}
