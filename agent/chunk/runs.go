package chunk

import "slices"

// A run is the chunks lo..hi-1.
type run struct{ lo, hi int64 }

// runs is a set of chunks as sorted runs that neither overlap nor touch.
type runs []run

// find returns the index of the first run that ends after i.
func (rs runs) find(i int64) int {
	n, _ := slices.BinarySearchFunc(rs, i, func(r run, i int64) int {
		if r.hi <= i {
			return -1
		}
		return 1
	})
	return n
}

func (rs runs) has(i int64) bool {
	n := rs.find(i)
	return n < len(rs) && rs[n].lo <= i
}

// add inserts lo..hi-1, which may overlap what is there.
func (rs runs) add(lo, hi int64) runs {
	if lo >= hi {
		return rs
	}
	from := rs.find(lo - 1) // a run that ends at lo touches
	to := from
	for to < len(rs) && rs[to].lo <= hi {
		lo, hi = min(lo, rs[to].lo), max(hi, rs[to].hi)
		to++
	}
	return slices.Replace(rs, from, to, run{lo, hi})
}

// remove takes lo..hi-1 away, as much of it as is there.
func (rs runs) remove(lo, hi int64) runs {
	from := rs.find(lo)
	to := from
	var rest []run
	for to < len(rs) && rs[to].lo < hi {
		if rs[to].lo < lo {
			rest = append(rest, run{rs[to].lo, lo})
		}
		if rs[to].hi > hi {
			rest = append(rest, run{hi, rs[to].hi})
		}
		to++
	}
	return slices.Replace(rs, from, to, rest...)
}
