package main

import (
	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func (a *app) eraseCommand() *cobra.Command {
	var version string
	cmd := &cobra.Command{
		Use:   "erase ADDRESS",
		Short: "Erase one object, or a container in which nothing is",
		Long: `Erase one object in the state that it has now, or, if the address ends in '/', a container in which nothing is. Nothing
else is ever erased: what comes to the name later is not what was ordered. The provider must let your account erase there, and no hold
or retention may be in force. With --version it is that state of the object, as 'consign stat' shows it, or nothing.`,
		Args: exactly("ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.erase(cmd, args[0], token.Version(version)) },
	}
	cmd.Flags().StringVar(&version, "version", "", "erase this `state` of the object and no other")
	addClientFlags(cmd)
	return cmd
}

func (a *app) erase(cmd *cobra.Command, where string, version token.Version) error {
	at, err := parseAddress(where)
	if err != nil {
		return err
	}
	switch {
	case at.Name == "":
		return &problem.Error{
			Code: problem.Usage, Detail: quoted(at.String()) + " is a whole container, which only the provider's operator can take away",
			Remedy: "Name an object in it, or a path that is empty.",
		}
	case at.into && version != "":
		return problem.New(problem.Usage, "%s names a container, which has no --version", quoted(where))
	}
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	if !at.into && version == "" {
		if version, err = s.versionOf(cmd, at); err != nil {
			return err
		}
	}
	order := token.Order{Do: token.Erase, Scope: token.One, To: at.Location, Version: version}
	return s.lookup(cmd.Context(), order, api.Lookup{}, func(e api.Entry) (bool, error) {
		if a.format != table {
			return true, a.printJSON(e)
		}
		how := ""
		if e.Sanitized != "" {
			how = ", wiped by " + printable(e.Sanitized)
		}
		a.note("erased %s%s", printable(at.String()), how)
		return true, nil
	})
}

// versionOf returns the state that an object has now.
func (s *session) versionOf(cmd *cobra.Command, at address) (token.Version, error) {
	var version token.Version
	order := token.Order{Do: token.Stat, Scope: token.One, From: at.Location}
	err := s.lookup(cmd.Context(), order, api.Lookup{}, func(e api.Entry) (bool, error) {
		switch {
		case e.Code != "":
			return false, problem.New(e.Code, "%s: %s", printable(at.String()), e.Detail)
		case e.Type == string(store.Subtree):
			return false, &problem.Error{
				Code: problem.Missing, Detail: "There is no object " + quoted(at.String()) + ", but a container of that name",
				Remedy: "With '/' at its end the address means the container, which is erased if nothing is in it.",
			}
		}
		version = e.Version
		return true, nil
	})
	if err == nil && version == "" {
		err = problem.New(problem.Missing, "There is no object %s whose state could be named", quoted(at.String()))
	}
	return version, err
}
