package reach_test

import (
	"net/netip"
	"testing"

	"github.com/consign-transfer/consign/broker/api/reach"
)

func TestWhereAddressesLead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		addr          string
		inner, public bool
	}{
		{"127.0.0.1", true, false}, {"::1", true, false}, {"::ffff:127.0.0.1", true, false}, {"64:ff9b::7f00:1", true, false}, {"2002:7f00:1::", true, false},
		{"0.0.0.0", true, false}, {"::", true, false}, {"169.254.169.254", true, false}, {"fe80::1%eth0", true, false}, {"224.0.0.1", true, false},
		{"255.255.255.255", true, false}, {"fd00:ec2::254", true, false}, {"100.100.100.200", true, false}, {"168.63.129.16", true, false},
		{"192.0.0.192", true, false}, {"64:ff9b::a9fe:a9fe", true, false},
		{"10.1.2.3", false, false}, {"172.16.0.1", false, false}, {"192.168.1.1", false, false}, {"100.64.0.1", false, false}, {"::ffff:10.0.0.1", false, false},
		{"64:ff9b::a00:1", false, false}, {"2002:a00:1::1", false, false}, {"fc00::1", false, false}, {"fd12::1", false, false}, {"2001:db8::1", false, false},
		{"0.1.2.3", false, false}, {"240.0.0.1", false, false}, {"198.18.0.1", false, false}, {"2001::1", false, false}, {"64:ff9b:1::1", false, false},
		{"::7f00:1", false, false}, {"100::1", false, false},
		{"93.184.215.14", false, true}, {"172.32.0.1", false, true}, {"2606:2800:21f::1", false, true}, {"64:ff9b::5db8:d70e", false, true},
		{"2002:5db8:d70e::1", false, true}, {"::ffff:93.184.215.14", false, true},
	} {
		a := netip.MustParseAddr(c.addr)
		if got := reach.Inner(a); got != c.inner {
			t.Errorf("%s: inner: got %v, want %v", a, got, c.inner)
		}
		if got := reach.Public(a); got != c.public {
			t.Errorf("%s: public: got %v, want %v", a, got, c.public)
		}
	}
	if (reach.Public(netip.Addr{})) || !reach.Inner(netip.Addr{}) {
		t.Error("the zero address leads somewhere")
	}
}
