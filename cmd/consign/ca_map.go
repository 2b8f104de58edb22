package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func (a *app) caMapCommand() *cobra.Command {
	var issuer string
	cmd := &cobra.Command{
		Use: "map CERT IDENTITY", Short: "Say whose a certificate without a SPIFFE name is", Args: exactly("CERT", "IDENTITY"),
		Long: `Print the line that makes the holder of the certificate in CERT (PEM, its issuer's certificate behind it or in --issuer) the
subscriber IDENTITY. Append it to the file that broker and agents of the provider name under subscribers:

  consign ca map alice.pem spiffe://north/subscriber/alice >> north.accounts

The line names the issuer's key and the whole subject, so it holds for every renewal under the same key of the issuer. Look at the
subject before you do: whoever that authority certifies with it is this account.`,
		RunE: func(_ *cobra.Command, args []string) error { return a.caMap(args[0], issuer, token.Identity(args[1])) },
	}
	cmd.Flags().StringVar(&issuer, "issuer", "", "the issuer's certificate is in this `file`")
	return cmd
}

func (a *app) caMap(cert, issuer string, id token.Identity) error {
	chain, err := readChain(cert)
	if err != nil {
		return err
	}
	if issuer != "" {
		by, err := readChain(issuer)
		if err != nil {
			return err
		}
		chain = certs.Chain{chain.Leaf(), by.Leaf()}
	}
	line, err := certs.AccountLine(chain, id)
	if err != nil {
		return err
	}
	if a.format != table {
		words := strings.SplitN(line, " ", 4)
		return a.printJSON(map[string]any{"identity": id, "issuer": words[1], "subject": words[3], "line": line})
	}
	_, err = fmt.Fprintln(a.out, line)
	return err
}

// readChain reads a chain from a file in PEM.
func readChain(name string) (certs.Chain, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, problem.Wrap(err, problem.Usage, "The certificate %s cannot be read", quoted(name))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, certs.MaxChainPEM+1))
	if err != nil {
		return nil, problem.Wrap(err, problem.Usage, "The certificate %s cannot be read", quoted(name))
	}
	return certs.ParseChain(data)
}
