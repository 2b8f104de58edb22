package main

import (
	"path"
	"regexp"
	"strings"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// providerPart is how an address of ours begins: a provider and a colon.
var providerPart = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*:`)

// An address is a location as it was typed.
type address struct {
	token.Location
	into bool // it ended in '/': what goes there keeps its own last segment
}

// parseAddress reads provider:/container/name. A local path gets a sentence of its own.
func parseAddress(s string) (address, error) {
	if !providerPart.MatchString(s) && !strings.Contains(s, ":") {
		return address{}, &problem.Error{
			Code:   problem.BadAddress,
			Detail: quoted(s) + " is a path of this machine, and objects are addressed as provider:/container/name",
			Remedy: "Export the folder through an agent (see 'consign agent init'), then name it as provider:/container/name.",
		}
	}
	if scheme, _, ok := strings.Cut(s, "://"); ok {
		return address{}, &problem.Error{
			Code:   problem.BadAddress,
			Detail: "The address " + quoted(s) + " is a URL of the scheme " + quoted(scheme) + ", and objects are addressed as provider:/container/name",
		}
	}
	if p, rest, ok := strings.Cut(s, ":"); ok && !strings.HasPrefix(rest, "/") && token.CheckProvider(token.Provider(p)) == nil {
		return address{}, &problem.Error{
			Code:   problem.BadAddress,
			Detail: "The address " + quoted(s) + " has no '/' after the provider",
			Remedy: "Write it as " + p + ":/container/name.",
		}
	}
	l, err := token.ParseLocation(s)
	if err != nil {
		return address{}, err
	}
	return address{Location: l, into: strings.HasSuffix(s, "/") || l.Name == ""}, nil
}

// roots returns the source and destination roots of a copy, as cp reads its two arguments. See
// the help of 'consign cp' for the rule.
func roots(from, to address, recursive bool) (token.Scope, token.Location, token.Location, error) {
	src, dst := from.Location, to.Location
	base := path.Base(string(src.Name))
	if src.Name == "" {
		base = ""
	}
	if recursive {
		if to.into && base != "" {
			dst.Name = below(dst.Name, base)
		}
		return token.Tree, src, dst, checkRoots(src, dst)
	}
	if from.into {
		return "", src, dst, &problem.Error{
			Code:   problem.Usage,
			Detail: "The source " + quoted(src.String()) + " names a container or prefix, not one object",
			Remedy: "Add -r to copy everything below it, or name one object without '/' at its end.",
		}
	}
	if to.into {
		dst.Name = below(dst.Name, base)
	}
	return token.One, src, dst, checkRoots(src, dst)
}

func checkRoots(src, dst token.Location) error {
	if src == dst {
		return problem.New(problem.Usage, "The source and the destination are the same, %s", quoted(src.String()))
	}
	return dst.Check()
}

// below returns the name base below the prefix.
func below(prefix token.ObjectName, base string) token.ObjectName {
	if prefix == "" {
		return token.ObjectName(base)
	}
	return prefix + "/" + token.ObjectName(base)
}
