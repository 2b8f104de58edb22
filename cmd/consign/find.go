package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// findOptions are the flags of 'consign find'.
type findOptions struct {
	name, digest, meta string
	limit              int
}

func (a *app) findCommand() *cobra.Command {
	var opt findOptions
	cmd := &cobra.Command{
		Use: "find [flags] [ADDRESS|PROVIDER]", Short: "Search what the broker knows by name, digest or metadata",
		Long: `Search the objects and containers that the broker has a row of: what was consigned or adopted, and what has metadata or a list of its own.
What is in a store and was never one of these is found with 'consign ls -r'. Only what you may read the metadata of is printed. Without
an address all providers are searched at which you have an account, with a PROVIDER all its containers; all flags that are given must hold.

  consign find --name '*.csv' north:/data/
  consign find --digest "$(b3sum --no-names a.csv)"
  consign find --meta colour=red north`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage(cmd, "%q takes one ADDRESS or PROVIDER at most, and %d were given", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.find(cmd, strings.Join(args, ""), opt) },
	}
	cmd.Flags().StringVar(&opt.name, "name", "", "names that match this `pattern`, as of cp --include: relative to the address")
	cmd.Flags().StringVar(&opt.digest, "digest", "", "objects of this `digest`, as stat or b3sum prints it")
	cmd.Flags().StringVar(&opt.meta, "meta", "", "what has this `item=value` of user metadata")
	cmd.Flags().IntVar(&opt.limit, "limit", 0, "print at most this many; 0 is all")
	addClientFlags(cmd)
	return cmd
}

func (a *app) find(cmd *cobra.Command, where string, opt findOptions) error {
	what, err := searchOf(cmd, where, opt)
	if err != nil {
		return err
	}
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.preflight(); err != nil {
		return err
	}
	out := newPrinter(a, []string{"SIZE", "MODIFIED", "DIGEST", "ADDRESS"}, func(f api.Found) []string {
		size, digest, name := "-", "-", f.At.String()
		if f.Kind == api.ObjectNode {
			size = bytesText(f.Size)
		} else if !strings.HasSuffix(name, "/") {
			name += "/"
		}
		if f.Node.Digest != "" {
			digest = string(f.Node.Digest)
		}
		return []string{size, timeText(f.Modified), digest, name}
	})
	left := opt.limit
	for _, p := range s.searched(what.At.Provider) {
		what.At.Provider = p
		c, err := s.clientAt(p)
		if err != nil {
			return err
		}
		err = pages(cmd.Context(), func(cursor string) (api.Page[api.Found], error) {
			what.Cursor, what.Limit = cursor, left
			page, err := c.Find(cmd.Context(), what)
			if opt.limit > 0 {
				if left -= len(page.Items); left == 0 {
					page.Next = ""
				}
			}
			return page, err
		}, out.Print)
		if err != nil {
			return err
		}
		if opt.limit > 0 && left == 0 {
			break
		}
	}
	return out.Close()
}

// searched returns the providers to search: p alone, or if it is empty all at which we have an account. What we may see is decided for that.
func (s *session) searched(p token.Provider) []token.Provider {
	if p != "" {
		return []token.Provider{p}
	}
	var out []token.Provider
	for _, i := range s.good() {
		out = append(out, s.accounts[i].Identity().Provider())
	}
	return out
}

// searchOf reads what to look for.
func searchOf(cmd *cobra.Command, where string, opt findOptions) (api.Search, error) {
	what := api.Search{Name: opt.name}
	switch {
	case where == "":
	case !strings.ContainsAny(where, ":/"):
		what.At.Provider = token.Provider(where)
		if err := token.CheckProvider(what.At.Provider); err != nil {
			return what, err
		}
	default:
		at, err := parseAddress(where)
		if err != nil {
			return what, err
		}
		what.At = at.Location
	}
	if opt.limit < 0 {
		return what, usage(cmd, "The limit is below 0")
	}
	if opt.digest != "" {
		if !strings.Contains(opt.digest, ":") {
			opt.digest = "blake3:" + opt.digest // as b3sum prints it
		}
		d, err := token.ParseDigest(opt.digest)
		if err != nil {
			return what, err
		}
		what.Digest = d
	}
	if opt.meta != "" {
		item, value, ok := strings.Cut(opt.meta, "=")
		if !ok || item == "" {
			return what, usage(cmd, "%s is not of the form ITEM=VALUE", quoted(opt.meta))
		}
		v, err := itemValue(value)
		if err != nil {
			return what, usage(cmd, "The value of %s begins as JSON and is none", quoted(item))
		}
		what.Item, what.Value = item, string(v)
	}
	if what.Name == "" && what.Digest == "" && what.Item == "" {
		return what, &problem.Error{
			Code: problem.Usage, Detail: "There is nothing to look for",
			Remedy: "Give --name, --digest or --meta; --name '**' finds everything.",
		}
	}
	return what, nil
}
