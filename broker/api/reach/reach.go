// Package reach says what kind of network an address leads to, for those who dial an address on somebody
// else's word: an agent its peer's, a broker a webhook's.
//
// It guarantees that an IPv4 address is judged the same however it is written: mapped into IPv6, or behind one of
// the prefixes that gateways turn back into IPv4. It dials nothing and resolves nothing: it must be asked about the address that
// is about to be dialled, after a name was resolved.
package reach

import "net/netip"

// Inner reports whether addr leads to this machine, to its own link, or to a cloud's metadata service: loopback, link-local,
// multicast, broadcast, unspecified and invalid ones.
func Inner(addr netip.Addr) bool {
	addr = carried(addr.Unmap())
	return !addr.IsValid() || addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast() || addr.IsLinkLocalUnicast() ||
		addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || metadata(addr)
}

// Public reports whether addr is one of the public internet: not Inner, and in none of the blocks that IANA has set aside for
// private networks and other special ends (RFC 6890).
func Public(addr netip.Addr) bool {
	if Inner(addr) {
		return false
	}
	addr = carried(addr.Unmap())
	for _, p := range special() {
		if p.Contains(addr.WithZone("")) {
			return false
		}
	}
	return addr.Is4() || netip.MustParsePrefix("2000::/3").Contains(addr)
}

// special returns the blocks that are set aside.
func special() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
		"192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"2001::/23", "2001:db8::/32", "3fff::/20",
	} {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// metadata reports whether addr is a cloud's metadata service outside link-local space.
func metadata(addr netip.Addr) bool {
	switch addr.String() {
	case "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192":
		return true
	}
	return false
}

// carried returns the IPv4 address that a gateway would make of addr (RFC 6052, RFC 3056), or addr.
func carried(addr netip.Addr) netip.Addr {
	b := addr.As16()
	switch {
	case !addr.Is6():
	case netip.MustParsePrefix("64:ff9b::/96").Contains(addr):
		return netip.AddrFrom4([4]byte(b[12:]))
	case netip.MustParsePrefix("2002::/16").Contains(addr):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return addr
}
