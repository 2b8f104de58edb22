package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// lsOptions are the flags of 'consign ls'.
type lsOptions struct {
	recursive, long bool
}

func (a *app) lsCommand() *cobra.Command {
	var opt lsOptions
	cmd := &cobra.Command{
		Use:   "ls [flags] ADDRESS",
		Short: "List the objects in a container or below a prefix",
		Long: `List what is directly below an address, as the provider's agent sees it now. Deeper names appear as one
entry that ends in '/'. With -r every object below is listed. With -l, -o json and -o jsonl what the broker knows of it comes with it.

  consign ls north:/data/
  consign ls -lr north:/data/a`,
		Args: exactly("ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.ls(cmd, args[0], opt) },
	}
	cmd.Flags().BoolVarP(&opt.recursive, "recursive", "r", false, "list every object below the address")
	cmd.Flags().BoolVarP(&opt.long, "long", "l", false, "also print size, time, mode and owner")
	addClientFlags(cmd)
	return cmd
}

func (a *app) ls(cmd *cobra.Command, where string, opt lsOptions) error {
	at, err := parseAddress(where)
	if err != nil {
		return err
	}
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	var heading []string
	if opt.long {
		heading = []string{"MODE", "OWNER", "SIZE", "MODIFIED", "NAME"}
	}
	out := newPrinter(a, heading, func(e api.Entry) []string { return lsRow(e, at.Location, opt.long) })
	order := token.Order{Do: token.List, Scope: token.Tree, From: at.Location}
	err = s.lookup(cmd.Context(), order, api.Lookup{Level: !opt.recursive}, func(e api.Entry) (bool, error) {
		return true, out.Print(e)
	})
	if problem.Of(err) == problem.Missing || (err == nil && out.n == 0 && at.Name != "") {
		return a.lsOne(cmd, s, at, out)
	}
	if err != nil {
		return err
	}
	return out.Close()
}

// lsOne lists the one object that an address names.
func (a *app) lsOne(cmd *cobra.Command, s *session, at address, out *printer[api.Entry]) error {
	order := token.Order{Do: token.Stat, Scope: token.One, From: at.Location}
	err := s.lookup(cmd.Context(), order, api.Lookup{}, func(e api.Entry) (bool, error) {
		if e.Code != "" {
			return false, problem.New(e.Code, "%s: %s", printable(at.String()), e.Detail)
		}
		if at.into && e.Type == string(store.Object) {
			return false, problem.New(problem.Missing, "There is nothing below %s; without the '/' it names an object", quoted(at.String()+"/"))
		}
		if e.Type == string(store.Subtree) {
			return true, nil
		}
		return true, out.Print(e)
	})
	if err != nil {
		return err
	}
	return out.Close()
}

// lsRow is one line for people: names are printed relative to the address.
func lsRow(e api.Entry, root token.Location, long bool) []string {
	name := string(e.Name)
	if rest, ok := strings.CutPrefix(name, string(root.Name)+"/"); ok && root.Name != "" {
		name = rest
	}
	name = printable(name)
	if e.Type == string(store.Subtree) {
		name += "/"
	}
	if e.Code != "" {
		name += fmt.Sprintf("  (%s: %s)", e.Code, printable(e.Detail))
	}
	if !long {
		return []string{name}
	}
	size, mode := bytesText(e.Size), e.Mode
	if e.Type != string(store.Object) {
		size = "-"
	}
	if mode == "" {
		mode = "-"
	}
	if e.Type == string(store.Link) || e.Type == string(store.Special) {
		name += "  (" + e.Type + ")"
	}
	owner := "-"
	if e.Node != nil && e.Node.Owner != "" {
		owner = shortWho(e.Node.Owner, root.Provider)
	}
	return []string{mode, owner, size, timeText(e.ModTime), name}
}
