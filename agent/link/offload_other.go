//go:build !linux

package link

import "net"

// withOffload returns socket as it is: there is no receive offload here.
func withOffload(socket *net.UDPConn) (net.PacketConn, func() (reads, datagrams uint64)) {
	return socket, nil
}
