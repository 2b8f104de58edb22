package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const metaHelp = `Read and change the metadata of the namespace, in the names and forms of CDMI. Items whose names begin with cdmi_ are the
standard's: what you wish of how an object is kept (cdmi_retention_period, cdmi_hold_id, cdmi_geographic_placement, cdmi_value_hash ...),
which everything below inherits, and what the broker says of it, which nobody writes. All others are your own.

  consign meta set north:/data/a.csv colour=red 'tags=["x","y"]'
  consign meta set north:/archive/ cdmi_retention_period=2026-01-01T00:00:00.000000Z/2036-01-01T00:00:00.000000Z
  consign meta get north:/data/a.csv
  consign meta unset north:/data/a.csv colour`

func (a *app) metaCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "meta", Aliases: []string{"metadata"}, Short: "Read and change metadata", Long: metaHelp,
		Args: cobra.ArbitraryArgs, RunE: needCommand,
	}
	cmd.AddCommand(a.metaGetCommand(), a.metaSetCommand(), a.metaUnsetCommand(), a.metaReleaseCommand())
	return cmd
}

// A metaRow is one item as 'consign meta get' prints it.
type metaRow struct {
	Item  string           `json:"item"`
	Value json.RawMessage  `json:"value"`
	Class string           `json:"class"` // user, data, storage, inherited, provided
	From  []token.Location `json:"from,omitempty"`
	Kind  string           `json:"kind,omitempty"` // of what is provided: measured, attested, unknown
}

func (a *app) metaGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get ADDRESS [ITEM...]", Short: "Print metadata: one's own items, the wishes in force, and what the broker says",
		Args: atLeast(1, "an ADDRESS, and items"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.metaGet(cmd, args[0], args[1:]) },
	}
	addClientFlags(cmd)
	return cmd
}

func (a *app) metaGet(cmd *cobra.Command, where string, items []string) error {
	n, err := a.nodeAt(cmd, where)
	if err != nil {
		return err
	}
	if n.Storage == nil {
		return problem.New(problem.NotPermitted, "The account may see %s and not its metadata: READ_METADATA is missing", quoted(n.At.String()))
	}
	out := newPrinter(a, []string{"ITEM", "VALUE", "CLASS"}, func(r metaRow) []string {
		class := r.Class
		switch class {
		case "inherited":
			class = "inherited from " + addressList(r.From)
		case "provided":
			class = r.Kind
		}
		return []string{r.Item, itemText(r.Value), class}
	})
	found := map[string]bool{}
	for _, r := range append(metaRows(n), providedRows(n)...) {
		if len(items) > 0 && !slices.Contains(items, r.Item) {
			continue
		}
		found[r.Item] = true
		if err := out.Print(r); err != nil {
			return err
		}
	}
	for _, i := range items {
		if !found[i] {
			return problem.New(problem.NotFound, "%s has no item %s", quoted(n.At.String()), quoted(i))
		}
	}
	return out.Close()
}

// metaRows returns all items of a node, class by class and by name.
func metaRows(n api.Node) []metaRow {
	var rows []metaRow
	add := func(items api.Items, class string) {
		for _, name := range slices.Sorted(maps.Keys(items)) {
			rows = append(rows, metaRow{Item: name, Value: items[name], Class: class})
		}
	}
	add(n.User, "user")
	add(n.Data, "data")
	for _, s := range n.Settings {
		if len(s.From) == 1 && s.From[0] == n.At {
			continue // it is among its own
		}
		rows = append(rows, metaRow{Item: s.Item, Value: s.Value, Class: "inherited", From: s.From})
	}
	add(n.Storage, "storage")
	return rows
}

// providedRows returns what of each wish is true, by the names that CDMI has for it.
func providedRows(n api.Node) []metaRow {
	var rows []metaRow
	for _, item := range slices.Sorted(maps.Keys(n.Provided)) {
		p := n.Provided[item]
		r := metaRow{Item: item + "_provided", Value: p.Value, Class: "provided", Kind: p.Kind}
		if len(r.Value) == 0 {
			r.Value = json.RawMessage(`"unknown"`)
		}
		rows = append(rows, r)
	}
	return rows
}

func addressList(ls []token.Location) string {
	var out []string
	for _, l := range ls {
		out = append(out, l.String())
	}
	return strings.Join(out, ", ")
}

// itemText is a value for people: the text of a string, else JSON.
func itemText(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(v)
}

func (a *app) metaSetCommand() *cobra.Command {
	var match string
	cmd := &cobra.Command{
		Use: "set ADDRESS ITEM=VALUE...", Short: "Set items; others stay as they are",
		Long: `Set items of metadata. A VALUE that begins with [, { or " is JSON; any other is text. All of them are set, or none.`,
		Args: atLeast(2, "an ADDRESS and one ITEM=VALUE at least"),
		RunE: func(cmd *cobra.Command, args []string) error {
			set := api.Items{}
			for _, arg := range args[1:] {
				name, value, ok := strings.Cut(arg, "=")
				if !ok || name == "" {
					return usage(cmd, "%s is not of the form ITEM=VALUE", quoted(arg))
				}
				if _, twice := set[name]; twice {
					return usage(cmd, "The item %s is there twice", quoted(name))
				}
				var err error
				if set[name], err = itemValue(value); err != nil {
					return usage(cmd, "The value of %s begins as JSON and is none", quoted(name))
				}
			}
			if err := a.metaChange(cmd, args[0], api.NodeChange{Set: set}, match); err != nil {
				return err
			}
			for _, name := range slices.Sorted(maps.Keys(set)) {
				if c := space.Item(name).Class(); c == space.Storage || c == space.Provided {
					a.note("warning: The item %s is what the broker says, and was passed over", quoted(name))
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&match, "if-match", "", "make the change only if the place has this `etag`")
	addClientFlags(cmd)
	return cmd
}

// itemValue reads a value as it was typed.
func itemValue(s string) (json.RawMessage, error) {
	if s != "" && strings.ContainsRune(`[{"`, rune(s[0])) {
		if !json.Valid([]byte(s)) {
			return nil, fmt.Errorf("%s is not JSON", quoted(s))
		}
		return json.RawMessage(s), nil
	}
	return json.Marshal(s)
}

func (a *app) metaUnsetCommand() *cobra.Command {
	var match string
	cmd := &cobra.Command{
		Use: "unset ADDRESS ITEM...", Short: "Take items away; what is inherited counts again",
		Args: atLeast(2, "an ADDRESS and one ITEM at least"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.metaChange(cmd, args[0], api.NodeChange{Unset: args[1:]}, match)
		},
	}
	cmd.Flags().StringVar(&match, "if-match", "", "make the change only if the place has this `etag`")
	addClientFlags(cmd)
	return cmd
}

func (a *app) metaReleaseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "release ADDRESS HOLD", Short: "Take one hold of a place away, as an administrator of its provider",
		Long: `Take one of the strings of cdmi_hold_id away. Nobody can by changing metadata, its owner neither: who is under a hold is not to end it.
An administrator needs WRITE_RETENTION_HOLD there besides, from an entry or as the owner. One that is in force from a container above is
released there.`,
		Args: exactly("ADDRESS", "HOLD"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.metaChange(cmd, args[0], api.NodeChange{ReleaseHold: args[1]}, "")
		},
	}
	addClientFlags(cmd)
	return cmd
}

func (a *app) metaChange(cmd *cobra.Command, where string, change api.NodeChange, match string) error {
	at, err := parseAddress(where)
	if err != nil {
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
	n, err = c.ChangeNode(cmd.Context(), at.Location, n.Kind, change, match)
	if err != nil || a.format == table {
		return err
	}
	return a.printJSON(n)
}
