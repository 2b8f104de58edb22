package main

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func (a *app) statCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stat ADDRESS",
		Short: "Describe one object or container",
		Long: `Describe one object or container: what its store says of it now, and what the broker knows of it: owner, what you may do there, metadata, and the
wishes in force with where each comes from. If the store cannot be asked, what the broker knows is printed alone.

  consign stat north:/data/a.csv
  consign stat -o json north:/data/`,
		Args: exactly("ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.stat(cmd, args[0]) },
	}
	addClientFlags(cmd)
	return cmd
}

// A described is an object or container as its store and the namespace have it.
type described struct {
	api.Entry
	Node *api.Node `json:"node,omitempty"` // in place of the brief one
}

func (a *app) stat(cmd *cobra.Command, where string) error {
	at, err := parseAddress(where)
	if err != nil {
		return err
	}
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	var out described
	stored := at.Name != "" // a whole container is asked of nobody but the broker
	if stored {
		out.Entry, err = s.entry(cmd, at)
	}
	if err != nil && problem.Of(err) != problem.Missing && problem.Of(err) != problem.Hidden && !problem.MayRetry(err) {
		return err
	}
	kind := at.kind()
	if kind == "" && out.Type != "" {
		if kind = api.ObjectNode; out.Type == string(store.Subtree) {
			kind = api.ContainerNode
		}
	}
	c, bad := s.clientAt(at.Provider)
	var n api.Node
	if bad == nil {
		n, bad = c.Node(cmd.Context(), at.Location, kind)
	}
	if bad == nil && !stored && !n.Known {
		bad = exported(cmd.Context(), c, at.Location)
	}
	switch {
	case bad == nil && (out.Type != "" || n.Known || !stored):
		out.Node = &n
	case err != nil:
		return err
	case out.Type == "":
		return bad
	}
	if err != nil {
		a.note("warning: %s; what follows is what the broker knows of it", printable(strings.TrimSuffix(problem.As(err).Sentence(), ".")))
	}
	if out.Type == "" {
		out.Name, out.Type, stored = at.Name, string(n.Kind), false
	}
	if !stored || out.Type == string(store.Subtree) { // of a container what the broker knows to be below it
		out.Size, _ = strconv.ParseInt(itemText(n.Storage["cdmi_size"]), 10, 64) // 0 where it is not known or not shown
	}
	return a.printDescribed(at, out, stored)
}

// exported fails with problem.NoContainer if the broker knows of no agent that exports a whole container: it has a list nevertheless, as
// any name has, and a name that is mistyped is not to look as if it were there.
func exported(ctx context.Context, c *api.Client, at token.Location) error {
	page, err := c.Providers(ctx)
	if err != nil {
		return err
	}
	for _, p := range page.Items {
		if p.Name == at.Provider && slices.Contains(p.Containers, at.Container) {
			return nil
		}
	}
	return problem.New(problem.NoContainer, "No agent of %s exports the container %s", at.Provider, quoted(string(at.Container)))
}

// entry asks the store what an address names. problem.Missing: nothing, or an object where the address means a container.
func (s *session) entry(cmd *cobra.Command, at address) (api.Entry, error) {
	var got api.Entry
	order := token.Order{Do: token.Stat, Scope: token.One, From: at.Location}
	err := s.lookup(cmd.Context(), order, api.Lookup{}, func(e api.Entry) (bool, error) {
		if e.Code == problem.Missing && at.into {
			return false, problem.New(e.Code, "There is no container %s", quoted(at.String()+"/"))
		}
		if e.Code != "" {
			return false, problem.New(e.Code, "%s: %s", printable(at.String()), e.Detail)
		}
		if at.into && e.Type == string(store.Object) {
			return false, problem.New(problem.Missing, "There is nothing below %s; without the '/' it names an object", quoted(at.String()+"/"))
		}
		got = e
		return false, nil
	})
	if err == nil && got.Type == "" {
		err = problem.New(problem.Missing, "There is no object %s", quoted(at.String()))
	}
	return got, err
}

func (a *app) printDescribed(at address, d described, stored bool) error {
	if a.format != table {
		return a.printJSON(d)
	}
	rows := [][2]string{{"name", at.String()}, {"type", d.Type}}
	if stored || d.Node != nil && d.Node.Storage["cdmi_size"] != nil {
		rows = append(rows, [2]string{"size", strconv.FormatInt(d.Size, 10) + " (" + bytesText(d.Size) + ")"})
	}
	if stored {
		rows = append(rows, [][2]string{
			{"modified", timeText(d.ModTime)}, {"mode", d.Mode},
			{"version", string(d.Version)}, {"native", d.Native},
		}...)
	}
	if d.Node != nil {
		rows = append(rows, nodeRows(*d.Node)...)
	}
	return a.printPairs(rows)
}

// nodeRows is what the namespace knows, for people.
func nodeRows(n api.Node) [][2]string {
	rows := [][2]string{{"id", n.ID}, {"digest", string(n.Digest)}}
	if n.Storage != nil {
		owner := n.Owner
		if owner == "" {
			owner = "nobody"
		}
		rows = append(rows, [2]string{"owner", owner})
	}
	may := strings.Join(n.Permissions, ", ")
	if may == "" {
		may = "nothing"
	}
	rows = append(rows, [2]string{"you may", may})
	for _, r := range metaRows(n) {
		if r.Class == "storage" {
			continue
		}
		value := itemText(r.Value)
		if r.Class == "inherited" {
			value += "  (from " + addressList(r.From) + ")"
		}
		rows = append(rows, [2]string{r.Item, value})
	}
	for _, item := range slices.Sorted(maps.Keys(n.Provided)) {
		p := n.Provided[item]
		value := p.Kind
		if len(p.Value) > 0 {
			value = itemText(p.Value) + "  (" + p.Kind + ")"
		}
		rows = append(rows, [2]string{item + "_provided", value + "  " + p.Evidence})
	}
	for _, item := range []string{"cdmi_hash", "cdmi_ctime", "cdmi_mtime", "cdmi_atime", "cdmi_acount", "cdmi_mcount"} {
		if v, ok := n.Storage[item]; ok {
			rows = append(rows, [2]string{item, itemText(v)})
		}
	}
	return rows
}

// printPairs prints a table of two columns, without the rows that have no value.
func (a *app) printPairs(rows [][2]string) error {
	out := newPrinter(a, nil, func(r [2]string) []string { return []string{r[0], r[1]} })
	for _, r := range rows {
		if r[1] == "" {
			continue
		}
		if err := out.Print(r); err != nil {
			return err
		}
	}
	return out.Close()
}
