package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/ledger/verify"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func (a *app) receiptCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "receipt", Aliases: []string{"receipts"}, Short: "Fetch and verify what both agents signed",
		Args: cobra.ArbitraryArgs, RunE: needCommand,
	}
	cmd.AddCommand(a.receiptGetCommand(), a.receiptVerifyCommand())
	return cmd
}

func (a *app) receiptGetCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "get ID", Short: "Fetch the order, every manifest and every receipt of a transfer",
		Long: `Fetch the order, every manifest and every receipt of a transfer as JSON lines: all that an auditor
needs, with the certificate chains beside it. Without -f they go to standard output.`,
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTransfer(cmd, args[0], func(c *api.Client, t api.Transfer) error {
				n, err := a.receiptGet(cmd, c, t.ID, file)
				if err != nil {
					return err
				}
				if !t.State.Ended() {
					a.note("transfer %s has not ended: these are the receipts so far", t.ID)
				}
				a.note("batches: %d", n)
				return nil
			})
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "write to this new `file`")
	addClientFlags(cmd)
	return cmd
}

// receiptGet writes the bundle of a transfer and returns how many batches it holds. A file that was not
// written to its end is removed.
func (a *app) receiptGet(cmd *cobra.Command, c *api.Client, id token.TransferID, file string) (n int, err error) {
	order, err := c.Order(cmd.Context(), id)
	if err != nil {
		return 0, err
	}
	to := a.out
	if file != "" {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // holds nothing secret
		if errors.Is(err, fs.ErrExist) {
			return 0, &problem.Error{Code: problem.Conflict, Detail: "The file " + quoted(file) + " exists", Remedy: "Name another, or remove it."}
		}
		if err != nil {
			return 0, fmt.Errorf("writing the receipts: %w", err)
		}
		defer func() {
			if err = errors.Join(err, f.Close()); err != nil {
				err = errors.Join(err, os.Remove(file))
			}
		}()
		to = f
	}
	buffered := bufio.NewWriter(to)
	w, err := verify.NewWriter(buffered, order)
	if err != nil {
		return 0, err
	}
	err = pages(cmd.Context(), func(cursor string) (api.Page[api.BatchRecord], error) {
		return c.Batches(cmd.Context(), id, cursor)
	}, func(r api.BatchRecord) error {
		n++
		return w.Write(r)
	})
	if err != nil {
		return 0, err
	}
	if err := buffered.Flush(); err != nil {
		return 0, fmt.Errorf("writing the receipts: %w", err)
	}
	return n, nil
}

func (a *app) receiptVerifyCommand() *cobra.Command {
	var bundles []string
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Verify receipts offline",
		Long: `Verify what 'consign receipt get' wrote, without any network: the signatures and certificates of the order and of every
receipt, that the order covers every item under its name, and that both sides agree. Trusted are the
providers' root certificates: those of --trust, or else those of the configuration. FILE - is standard
input. The exit status is 7 if anything is wrong.

It cannot show that nothing is missing. Batch numbers that are not in the file and items without a receipt are
counted; batches that were cut off at the end are not noticed. Compare the number of items with what
'consign transfer show' says, or with the orders that you keep.`,
		Args: exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			trust, err := a.auditorsTrust(cmd, bundles)
			if err != nil {
				return err
			}
			return a.receiptVerify(args[0], trust)
		},
	}
	cmd.Flags().StringArrayVar(&bundles, "trust", nil, "trust these root certificates for a provider, as `provider=file`; may be repeated")
	return cmd
}

// auditorsTrust opens the bundles of --trust, or what the configuration trusts.
func (a *app) auditorsTrust(cmd *cobra.Command, bundles []string) (*certs.Trust, error) {
	files := map[token.Provider]string{}
	for _, b := range bundles {
		p, file, ok := strings.Cut(b, "=")
		if !ok || file == "" {
			return nil, usage(cmd, "--trust is %s and must be of the form provider=file", quoted(b))
		}
		files[token.Provider(p)] = file
	}
	if len(files) > 0 {
		return certs.OpenTrust(files)
	}
	cfg, err := a.clientConfig(nil)
	if err != nil {
		return nil, err
	}
	if len(cfg.Trust) == 0 {
		return nil, problem.New(problem.BadConfig, "The configuration names no trust bundles, and there is no --trust")
	}
	return cfg.trustConfig.open()
}

func (a *app) receiptVerify(name string, trust *certs.Trust) error {
	from := a.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return problem.Wrap(err, problem.Usage, "The file %s cannot be read", quoted(name))
		}
		defer f.Close()
		from = f
	}
	report, err := verify.Bundle(bufio.NewReader(from), trust)
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) || errors.Is(err, io.ErrClosedPipe) {
			return err
		}
		return &exitAs{problem.ExitIntegrity, err} // a bundle that cannot be read proves nothing
	}
	if err := a.printReport(report); err != nil {
		return err
	}
	if !report.Good() {
		return &exitAs{problem.ExitIntegrity, &problem.Error{
			Code: problem.Disputed, Detail: fmt.Sprintf("The receipts do not verify: %d things are wrong", report.Wrong),
			Remedy: "Keep the file, and compare it with what the agents' operators have.",
		}}
	}
	return nil
}

func (a *app) printReport(r verify.Report) error {
	if a.format != table {
		return a.printJSON(r)
	}
	rows := [][2]string{
		{"transfer", string(r.Transfer)}, {"from", printable(r.From.String())}, {"to", printable(r.To.String())},
	}
	if r.Period != 0 {
		rows = append(rows, [2]string{"run", fmt.Sprintf("%d, of an order that runs every %s", r.Run, everyText(r.Period))})
	}
	by, verdict := "ordered by", "good: every signature, certificate, name and digest"
	if r.Authority != token.ByOrder {
		by, verdict = "said to be for", "good: every receipt, certificate, name and digest; not one account's signature"
		rows = append(rows, [2]string{"rests on", "the word of the broker " + orDash([]string{string(r.Broker)}) + " alone: no account signed this order"})
	}
	for _, id := range r.Accounts {
		rows = append(rows, [2]string{by, string(id)})
	}
	var items []string
	for _, k := range slices.Sorted(mapKeys(r.Items)) {
		items = append(items, strconv.FormatInt(r.Items[token.Result(k)], 10)+" "+k)
	}
	if !r.Good() {
		verdict = strconv.FormatInt(r.Wrong, 10) + " things are wrong"
	}
	rows = append(rows,
		[2]string{"batches", fmt.Sprintf("%d, with %s", r.Batches, counted(r.Receipts, "receipt"))},
		[2]string{"items", orDash(items)},
		[2]string{"vouched for", fmt.Sprintf("%s, %s, by both sides", counted(r.Stored, "item"), bytesText(r.Bytes))},
	)
	if r.OneSided > 0 {
		rows = append(rows, [2]string{"one-sided", counted(r.OneSided, "item") + ", by the destination alone"})
	}
	if r.Looked > 0 {
		rows = append(rows, [2]string{"not exclusive", counted(r.Looked, "item") + ", in a store where the agent alone looked whether the name was free"})
	}
	if r.Silent > 0 {
		rows = append(rows, [2]string{"not reported", counted(r.Silent, "item") + " of these batches: no receipt of the destination here tells of them"})
	}
	if r.Skipped > 0 {
		rows = append(rows, [2]string{"not here", counted(r.Skipped, "batch number") + " below the highest: never begun, or left out of this file"})
	}
	rows = append(rows, [2]string{"verdict", verdict}, [2]string{"not shown", "that nothing was left out of this file at its end"})
	for _, p := range r.Problems {
		rows = append(rows, [2]string{"batch " + strconv.FormatInt(p.Bat, 10), printable(p.Sentence) + " (" + string(p.Code) + ")"})
	}
	return a.printPairs(rows)
}

// mapKeys yields the keys of counts as text.
func mapKeys(m map[token.Result]int64) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(string(k)) {
				return
			}
		}
	}
}
