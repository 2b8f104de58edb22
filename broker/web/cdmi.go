package web

import (
	"strings"

	"github.com/consign-transfer/consign/broker/web/cdmi"
)

// newCDMI returns what answers the paths of CDMI.
func (s *Server) newCDMI() (*cdmi.Handler, error) {
	b := s.conf.Broker
	space := b.Space()
	return cdmi.New(cdmi.Config{
		Reader: b, Writer: b, Self: b.Self(), Limits: space.Limits, Enterprise: space.Enterprise, Caller: caller, IfMatch: ifMatch, Fail: s.failAs,
	})
}

// inCDMI reports whether a path is one of CDMI.
func inCDMI(path string) bool {
	return strings.HasPrefix(path, cdmi.Prefix) || path == strings.TrimSuffix(cdmi.Prefix, "/")
}
