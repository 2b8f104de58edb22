package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func (a *app) statCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stat ADDRESS",
		Short: "Describe one object",
		Args:  exactly("ADDRESS"),
		RunE:  func(cmd *cobra.Command, args []string) error { return a.stat(cmd, args[0]) },
	}
	addClientFlags(cmd)
	return cmd
}

func (a *app) stat(cmd *cobra.Command, where string) error {
	at, err := parseAddress(where)
	if err != nil {
		return err
	}
	if at.Name == "" {
		return problem.New(problem.Usage, "%s is a whole container; 'consign stat' describes one object", quoted(at.String()))
	}
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	order := token.Order{Do: token.Stat, Scope: token.One, From: at.Location}
	found := false
	err = s.lookup(cmd.Context(), order, api.Lookup{}, func(e api.Entry) (bool, error) {
		if e.Code != "" {
			return false, problem.New(e.Code, "%s: %s", printable(at.String()), e.Detail)
		}
		found = true
		return true, a.printEntry(at, e)
	})
	if err == nil && !found {
		return problem.New(problem.Missing, "There is no object %s", quoted(at.String()))
	}
	return err
}

func (a *app) printEntry(at address, e api.Entry) error {
	if a.format != table {
		return a.printJSON(e)
	}
	return a.printPairs([][2]string{
		{"name", printable(at.String())}, {"type", e.Type}, {"size", strconv.FormatInt(e.Size, 10) + " (" + bytesText(e.Size) + ")"},
		{"modified", timeText(e.ModTime)}, {"mode", e.Mode}, {"version", printable(string(e.Version))}, {"digest", e.Native},
	})
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
