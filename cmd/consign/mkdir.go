package main

import (
	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func (a *app) mkdirCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mkdir ADDRESS",
		Short: "Make a path in a container, with its parents",
		Long: `Make a path in a container, with its parents. One that exists is fine; if an object has that name,
the command fails. Copying needs no mkdir: parents are made as objects arrive.`,
		Args: exactly("ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.mkdir(cmd, args[0]) },
	}
	addClientFlags(cmd)
	return cmd
}

func (a *app) mkdir(cmd *cobra.Command, where string) error {
	at, err := parseAddress(where)
	if err != nil {
		return err
	}
	if at.Name == "" {
		return &problem.Error{
			Code: problem.Usage, Detail: quoted(at.String()) + " is a whole container, which only the provider's operator can make",
			Remedy: "Name a path in it, or ask the operator to export the container.",
		}
	}
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	order := token.Order{Do: token.Make, Scope: token.One, To: at.Location}
	err = s.lookup(cmd.Context(), order, api.Lookup{}, func(e api.Entry) (bool, error) {
		if e.Code != "" {
			return false, problem.New(e.Code, "%s: %s", printable(at.String()), e.Detail)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	if a.format != table {
		return a.printJSON(at.Location)
	}
	return nil
}
