package chunk

import "encoding/binary"

// toValue spells the words of a chaining value as BLAKE3 does, little-endian.
func toValue(words [8]uint32) (v Value) {
	for i, w := range words {
		binary.LittleEndian.PutUint32(v[4*i:], w)
	}
	return v
}

func (v Value) words() (words [8]uint32) {
	for i := range words {
		words[i] = binary.LittleEndian.Uint32(v[4*i:])
	}
	return words
}
