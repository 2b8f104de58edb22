package main

import (
	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/certs/issue"
)

func (a *app) caCRLCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "crl", Short: "Print a revocation list", Args: exactly(),
		Long: `Print the revocation list of the authority, PEM: every certificate, not past its end, of the keys that 'consign ca deny' has
named. It is good for 24 hours. Brokers, agents and subscribers name the file under crls; 'consign ca serve' answers the same at
/v1/crl, so that they can fetch it: the list is signed, whoever carries it.`,
		RunE: func(*cobra.Command, []string) error {
			ca, err := issue.Open(dir)
			if err != nil {
				return err
			}
			list, err := ca.CRL(a.now())
			if err != nil {
				return err
			}
			if a.format != table {
				return a.printJSON(map[string]any{"crl": string(list)})
			}
			_, err = a.out.Write(list)
			return err
		},
	}
	dirFlag(cmd, &dir)
	return cmd
}
