package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/template"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/consign-transfer/consign/token/problem"
)

// samples are the commented configuration of an agent and the part of it for each kind of store.
//
//go:embed sample
var samples embed.FS

// A sampleStore is what the flags of 'consign agent init' say of the store. Empty is an example, or commented out.
type sampleStore struct {
	kind, dir, bucket, container, prefix, endpoint, region, account, credentials string
}

// sampleFlags are the flags of 'consign agent init' and the kinds of stores that have them.
var sampleFlags = map[string][]string{
	"dir": {kindDir}, "bucket": {kindS3, kindGCS}, "container": {kindAzure}, "account": {kindAzure}, "region": {kindS3},
	"prefix": {kindS3, kindAzure, kindGCS}, "endpoint": {kindS3, kindAzure, kindGCS}, "credentials": {kindS3, kindAzure, kindGCS},
}

func (a *app) agentInitCommand() *cobra.Command {
	var st sampleStore
	var out string
	cmd := &cobra.Command{
		Use: "init [FILE]", Short: "Write a commented configuration to a new file, or print it",
		Long: `Write the commented configuration of an agent next to one kind of store, to a file that does not exist yet, or to
standard output. What flags say of the store is filled in; every other setting is there with the reason for it. Secrets are
only ever named: --credentials takes the name of a file, or systemd:NAME.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && out != "" {
				return usage(cmd, "The file is named twice, by an argument and by --out")
			}
			text, err := st.sample(cmd)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				out = args[0]
			}
			if out == "" {
				_, err := fmt.Fprint(a.out, text)
				return err
			}
			return a.writeNew(out, text)
		},
	}
	f := cmd.Flags()
	f.StringVar(&st.kind, "store", kindDir, "the `kind` of store: dir, s3, azure or gcs")
	f.StringVar(&out, "out", "", "write to this new `file`, as the argument does")
	f.StringVar(&st.dir, "dir", "", "dir: the `folder`")
	f.StringVar(&st.bucket, "bucket", "", "s3, gcs: the `bucket`")
	f.StringVar(&st.container, "container", "", "azure: the `container` of the storage account")
	f.StringVar(&st.account, "account", "", "azure: the storage `account`")
	f.StringVar(&st.prefix, "prefix", "", "where in the bucket the container begins, a `path`")
	f.StringVar(&st.endpoint, "endpoint", "", "the `address` of the service, https://host")
	f.StringVar(&st.region, "region", "", "s3: the `region` of the bucket")
	f.StringVar(&st.credentials, "credentials", "", "the `file` that holds the secret, or systemd:NAME")
	return cmd
}

// sample is the configuration for the store.
func (st sampleStore) sample(cmd *cobra.Command) (string, error) {
	part, err := samples.ReadFile("sample/" + st.kind + ".yaml")
	if err != nil || st.kind == "agent" || strings.Contains(st.kind, "/") {
		return "", usage(cmd, "There is no kind of store %s; there are dir, s3, azure and gcs", quoted(st.kind))
	}
	for name, kinds := range sampleFlags {
		if cmd.Flags().Changed(name) && !slices.Contains(kinds, st.kind) {
			return "", usage(cmd, "--%s says nothing of a store of the kind %s", name, st.kind)
		}
	}
	if err := checkEndpoint("the store", st.endpoint); err != nil {
		return "", err
	}
	store, err := fillIn(string(part), map[string]string{
		"Dir": yamlText(orExample(st.dir, "/srv/data")), "Bucket": yamlText(orExample(st.bucket+st.container, "my-bucket")), "Account": yamlText(orExample(st.account, "myaccount")),
		"Prefix": settingLine("prefix", st.prefix, "archive/2026"), "Region": settingLine("region", st.region, "eu-central-1"),
		"Endpoint":    settingLine("endpoint", st.endpoint, "https://storage.example"),
		"Credentials": settingLine("credentials", st.credentials, "store.secret"),
	})
	if err != nil {
		return "", err
	}
	whole, err := samples.ReadFile("sample/agent.yaml")
	if err != nil {
		return "", fmt.Errorf("reading the sample: %w", err)
	}
	return fillIn(string(whole), map[string]string{"Store": store})
}

func orExample(s, example string) string {
	if s == "" {
		return example
	}
	return s
}

// settingLine is a setting, or an example that is commented out.
func settingLine(key, value, example string) string {
	if value == "" {
		return "# " + key + ": " + example
	}
	return key + ": " + yamlText(value)
}

// yamlText writes a scalar of YAML on one line.
func yamlText(s string) string {
	node := yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' }) {
		node.Style = yaml.DoubleQuotedStyle
	}
	out, err := yaml.Marshal(&node)
	must(err)
	return strings.TrimSuffix(string(out), "\n")
}

func fillIn(text string, values map[string]string) (string, error) {
	t, err := template.New("").Option("missingkey=error").Parse(text)
	if err != nil {
		return "", fmt.Errorf("reading the sample: %w", err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, values); err != nil {
		return "", fmt.Errorf("filling in the sample: %w", err)
	}
	return out.String(), nil
}

// writeNew writes a file that must not exist.
func (a *app) writeNew(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &problem.Error{Code: problem.Conflict, Detail: "The file " + quoted(name) + " exists", Remedy: "Name another, or remove it."}
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	a.note("wrote %s", printable(name))
	return nil
}
