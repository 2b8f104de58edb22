package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const aclHelp = `Read, change and explain the access control lists of the namespace. A list is of a whole container, of a container in it
(a '/' at the end of the address), or of one object. An entry is a line of type, identifier, flags and permissions, in the words of CDMI:

  ALLOW bob OBJECT_INHERIT,CONTAINER_INHERIT READ_OBJECT, READ_METADATA
  DENY  interns IDENTIFIER_GROUP,OBJECT_INHERIT 0x00000002
  AUDIT EVERYONE@ NO_FLAGS DELETE

The entries of a place come first, in their order, then those that it inherits, from the nearest container on. The first entry that denies any
of what is asked for denies; what no entry allows is denied. 'consign meta unset ADDRESS cdmi_acl' takes the own list of a place away.

  consign acl get north:/data/
  consign acl set north:/data/ "ALLOW bob OBJECT_INHERIT,CONTAINER_INHERIT READ"
  consign acl get north:/data/ > list && vi list && consign acl set -f list north:/data/
  consign acl explain bob north:/data/a.csv READ_OBJECT`

func (a *app) aclCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "acl", Short: "Read, change and explain access control lists", Long: aclHelp,
		Args: cobra.ArbitraryArgs, RunE: needCommand,
	}
	cmd.AddCommand(a.aclGetCommand(), a.aclSetCommand(), a.aclExplainCommand())
	return cmd
}

func (a *app) aclGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get ADDRESS", Short: "Print the list of a place, its own entries and those that it inherits", Args: exactly("ADDRESS"),
		Long: `Print the list of a place as text that 'consign acl set' takes. Entries with the flag INHERITED stand in a container above, and
have no effect where they are written back. The first line names the state that was read: a change of it is refused if
somebody else was quicker.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := a.nodeAt(cmd, args[0])
			if err != nil {
				return err
			}
			return a.printList(n)
		},
	}
	addClientFlags(cmd)
	return cmd
}

// etagLine begins the line of a list's text that names the state that was read.
const etagLine = "# etag: "

func (a *app) printList(n api.Node) error {
	if n.ACL == nil {
		return problem.New(problem.NotPermitted, "The account may see %s and not its list: READ_ACL is missing", quoted(n.At.String()))
	}
	if a.format != table {
		return a.printJSON(struct {
			At    token.Location `json:"at"`
			Kind  api.NodeKind   `json:"kind"`
			ETag  string         `json:"etag"`
			Owner string         `json:"owner,omitempty"`
			ACL   []api.ACE      `json:"acl"`
		}{n.At, n.Kind, n.ETag, n.Owner, n.ACL})
	}
	l, err := listOf(n.ACL)
	if err != nil {
		return err
	}
	owner := n.Owner
	if owner == "" {
		owner = "nobody"
	}
	fmt.Fprintf(a.out, "%s%s\n# %s %s, owned by %s\n%s", etagLine, printable(n.ETag), n.Kind, printable(n.At.String()), printable(owner), printableLines(l.Text(aclKind(n.Kind))))
	return nil
}

// listOf reads a list that a broker sent.
func listOf(entries []api.ACE) (acl.ACL, error) {
	data, err := json.Marshal(entries)
	if err != nil {
		return acl.ACL{}, err
	}
	return acl.Parse(data)
}

func aclKind(k api.NodeKind) acl.Kind {
	if k == api.ContainerNode {
		return acl.Container
	}
	return acl.Object
}

// aclOptions are the flags of 'consign acl set'.
type aclOptions struct {
	file, match, owner string
	add, remove        bool
}

func (a *app) aclSetCommand() *cobra.Command {
	var opt aclOptions
	cmd := &cobra.Command{
		Use: "set [flags] ADDRESS [ENTRY...]", Short: "Change the list or the owner of a place",
		Long: `Change the list of a place: entries from arguments, a line each, or with -f from a file, - for standard input. They replace its own
entries; with --add they come before them, and with --remove those that are equal go, all of which must be there. An identifier without '@' and '/' is a
subscriber of the place's provider, or a group of it with the flag IDENTIFIER_GROUP.

The change is made on the state that was read and refused if there is another by then. A file that 'consign acl get' wrote names that
state; --if-match names another, as -o json prints it.

  consign acl set --add north:/data/ "DENY mallory OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS"
  consign acl set --owner alice north:/data/`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(cmd, "%q takes an ADDRESS, and entries", cmd.CommandPath())
			}
			if len(args) > 1 && opt.file != "" {
				return usage(cmd, "Entries come from arguments or from the file of -f, not from both")
			}
			if len(args) == 1 && opt.file == "" && opt.owner == "" {
				return usage(cmd, "There is nothing to set: give entries, -f or --owner")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.aclSet(cmd, args[0], args[1:], opt) },
	}
	cmd.Flags().StringVarP(&opt.file, "file", "f", "", "read the entries from this `file`; - is standard input")
	cmd.Flags().StringVar(&opt.match, "if-match", "", "make the change only if the place has this `etag`")
	cmd.Flags().StringVar(&opt.owner, "owner", "", "make this `identity` the owner: the owner may, and an administrator for itself")
	cmd.Flags().BoolVar(&opt.add, "add", false, "put the entries before those that are there")
	cmd.Flags().BoolVar(&opt.remove, "remove", false, "take away the entries that are equal")
	cmd.MarkFlagsMutuallyExclusive("add", "remove")
	addClientFlags(cmd)
	return cmd
}

func (a *app) aclSet(cmd *cobra.Command, where string, lines []string, opt aclOptions) error {
	at, err := parseAddress(where)
	if err != nil {
		return err
	}
	text := strings.Join(lines, "\n")
	if opt.file != "" {
		if text, err = a.readText(opt.file); err != nil {
			return err
		}
		if first, _, _ := strings.Cut(text, "\n"); opt.match == "" && strings.HasPrefix(first, etagLine) {
			opt.match = strings.TrimSpace(strings.TrimPrefix(first, etagLine))
		}
	}
	given, err := acl.ParseText(text)
	if err != nil {
		return err
	}
	if given.Len() == 0 && (len(lines) > 0 || opt.file != "") {
		return &problem.Error{
			Code: problem.Usage, Detail: "There is no entry in what is to be set, and an empty list denies everybody",
			Remedy: "Give entries; 'consign meta unset " + quoted(where) + " cdmi_acl' takes the own list away, so that what is inherited counts alone.",
		}
	}
	var change api.NodeChange
	if opt.owner != "" {
		owner, err := expandWho(opt.owner, at.Provider)
		if err != nil {
			return err
		}
		change.Owner = &owner
	}
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	c, n, err := s.node(cmd.Context(), at)
	if code := problem.Of(err); c != nil && change.Owner != nil && given.Len() == 0 && (code == problem.Hidden || code == problem.NotPermitted) {
		n, err = api.Node{Kind: at.kind()}, nil // an administrator may take what it may not see
	}
	if err != nil {
		return err
	}
	if len(lines) > 0 || opt.file != "" {
		entries, err := merged(n, given, at.Provider, opt)
		if err != nil {
			return err
		}
		change.ACL = &entries
	}
	if opt.match == "" {
		opt.match = n.ETag
	}
	n, err = c.ChangeNode(cmd.Context(), at.Location, n.Kind, change, opt.match)
	if err != nil || a.format == table {
		return err
	}
	return a.printJSON(n)
}

// merged returns the own entries that a node is to have.
func merged(n api.Node, given acl.ACL, p token.Provider, opt aclOptions) ([]api.ACE, error) {
	var entries []acl.ACE
	for _, e := range given.Own().All() {
		if e.Flags&acl.IdentifierGroup == 0 {
			who, err := expandWho(string(e.Who), p)
			if err != nil {
				return nil, err
			}
			e.Who = acl.Who(who)
		}
		entries = append(entries, e)
	}
	if opt.add || opt.remove {
		if n.ACL == nil {
			return nil, problem.New(problem.NotPermitted, "To change entries of %s one must read them, and READ_ACL is missing", quoted(n.At.String()))
		}
		was, err := listOf(n.ACL)
		if err != nil {
			return nil, err
		}
		if opt.remove {
			own := without(was, nil)
			for _, e := range entries {
				if !slices.Contains(own, e) {
					return nil, noEntry(n, e)
				}
			}
			entries = without(was, entries)
		} else {
			entries = append(entries, without(was, entries)...)
		}
	}
	l, err := acl.New(entries...)
	if err != nil {
		return nil, err
	}
	out := []api.ACE{}
	return out, json.Unmarshal(l.MarshalNames(aclKind(n.Kind)), &out)
}

// noEntry says that there is nothing to remove: who takes a right away is to know that it is still there.
func noEntry(n api.Node, e acl.ACE) error {
	l, err := acl.New(e)
	if err != nil {
		return err
	}
	return &problem.Error{
		Code: problem.NotFound, Detail: quoted(n.At.String()) + " has no entry of its own that equals " + printable(strings.TrimSpace(l.Text(aclKind(n.Kind)))),
		Remedy: "Copy the line from 'consign acl get', whole; one with INHERITED is removed where it stands.",
	}
}

// without returns the own entries of a list that are not among those that go.
func without(l acl.ACL, gone []acl.ACE) []acl.ACE {
	var left []acl.ACE
	for _, e := range l.Own().All() {
		if !slices.Contains(gone, e) {
			left = append(left, e)
		}
	}
	return left
}

// readText reads a file, or standard input for -, up to the size of a list.
func (a *app) readText(file string) (string, error) {
	in := a.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", problem.Wrap(err, problem.Usage, "The file %s cannot be read", quoted(file))
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, acl.MaxSize+1))
	if err != nil {
		return "", problem.Wrap(err, problem.Usage, "The file %s cannot be read", quoted(file))
	}
	return string(data), nil
}

func (a *app) aclExplainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain WHO ADDRESS PERMISSION", Short: "Show entry by entry why somebody may do something, or may not",
		Long: `Show how the list of a place is walked for somebody: every entry, what became of it, and which one decided. WHO is a subscriber
of the place's provider, or a whole identity, or ANONYMOUS@. PERMISSION is one name, or several between commas, or a number. The exit status is 0
whatever the walk came to. To read the entries takes READ_ACL there; without it you are told of yourself alone, in one sentence.

  consign acl explain alice north:/data/x READ_OBJECT
  consign acl explain alice north:/data/ "ADD_OBJECT, ADD_SUBCONTAINER"`,
		Args: exactly("WHO", "ADDRESS", "PERMISSION"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.aclExplain(cmd, args[0], args[1], args[2]) },
	}
	addClientFlags(cmd)
	return cmd
}

func (a *app) aclExplain(cmd *cobra.Command, who, where, want string) error {
	at, err := parseAddress(where)
	if err != nil {
		return err
	}
	if who, err = expandWho(who, at.Provider); err != nil {
		return err
	}
	if _, err := acl.ParseMask(want); err != nil {
		return err
	}
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	c, n, err := s.node(cmd.Context(), at)
	if err != nil {
		return err
	}
	e, err := c.ExplainAccess(cmd.Context(), at.Location, n.Kind, who, want)
	if err != nil {
		return err
	}
	if a.format != table {
		return a.printJSON(e)
	}
	fmt.Fprint(a.out, printableLines(e.Text))
	return nil
}
