package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token/problem"
)

// newConfigText begins a configuration that does not exist yet.
const newConfigText = `# The configuration of consign; docs/OPERATIONS.md explains it. Paths are relative to the folder of this file.
# broker:
#   url: https://hub.example:7443
#   id: spiffe://hub/broker/main    # who must answer there
# trust:                            # root certificates of the broker's domain, and of the providers'
#   hub: hub.pem
`

// accountsKey is the setting that is edited.
const accountsKey = "accounts"

// ownConfig returns the file that accounts are written to: the one that was named, or the user's own. It need not exist.
func (a *app) ownConfig() (string, error) {
	files, err := a.candidates(subscriberConfig)
	if err != nil {
		return "", err
	}
	if len(files) > 1 || a.config != "" || a.getenv(envConfig) != "" {
		return filepath.Abs(files[len(files)-1])
	}
	return "", problem.New(problem.BadConfig, "There is no folder for your configuration: neither HOME nor XDG_CONFIG_HOME is set")
}

// ownAccounts returns the accounts that stand in one file; none if there is no such file.
func (a *app) ownAccounts(file string) ([]keyPair, error) {
	cfg, err := a.alone(file)
	return cfg.Accounts, err
}

// alone reads one file and no other.
func (a *app) alone(file string) (cliConfig, error) {
	var cfg cliConfig
	_, err := a.load(&cfg, loading{files: []string{file}})
	return cfg, err
}

// An edition is a change of the list of accounts.
type edition struct {
	remove []int    // of the list as it is
	add    *keyPair // at the end
}

// editAccounts changes the accounts in a file and not a byte of anything else, comments included. What comes out is read again,
// and must mean what was wanted, before it takes the place of the file, whole or not at all.
func (a *app) editAccounts(file string, e edition) error {
	if target, err := filepath.EvalSymlinks(file); err == nil {
		file = target
	}
	data, err := os.ReadFile(file)
	text := string(data)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = newConfigText, os.MkdirAll(filepath.Dir(file), 0o700)
	}
	if err != nil {
		return problem.Wrap(err, problem.BadConfig, "The configuration file %s cannot be read", quoted(file))
	}
	want, err := a.alone(file)
	if err != nil {
		return err
	}
	var left []keyPair
	for i, k := range want.Accounts {
		if !slices.Contains(e.remove, i) {
			left = append(left, k)
		}
	}
	if e.add != nil {
		left = append(left, *e.add)
	}
	want.Accounts = left
	after, err := e.apply(text, filepath.Dir(file))
	if err != nil {
		return e.byHand(file, err)
	}
	return a.replaceConfig(file, data, after, want, e)
}

// replaceConfig writes the new text beside the file and renames it over the file, if it reads as wanted and the
// file is still what was edited.
func (a *app) replaceConfig(file string, old []byte, text string, want cliConfig, e edition) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".config-*.yaml") // of mode 0600
	if err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // once it is renamed, there is nothing to remove
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	got, err := a.alone(f.Name())
	if len(got.Accounts) == 0 {
		got.Accounts = nil
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		return e.byHand(file, err)
	}
	if now, err := os.ReadFile(file); err != nil && !errors.Is(err, fs.ErrNotExist) || !bytes.Equal(now, old) {
		return &problem.Error{Code: problem.Conflict, Detail: "The configuration " + quoted(file) + " was changed by somebody else meanwhile", Remedy: "Try again."}
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	// Durable from here, once the folder is.
	if err := certs.SyncDir(filepath.Dir(file)); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	return nil
}

// byHand is for a file whose form is beyond us: it is left as it is.
func (e edition) byHand(file string, cause error) error {
	remedy := "Write the list under accounts with one item a line ('- cert: FILE'), and try again."
	if e.add != nil {
		remedy = "Add it by hand under accounts: '" + strings.Join(strings.Fields(strings.Join(itemLines(*e.add, 0, ""), " ")), " ") + "'."
	}
	return &problem.Error{Code: problem.BadConfig, Cause: cause, Detail: "The accounts in " + quoted(file) + " are not written in a form that can be edited", Remedy: remedy}
}

// itemLines are an item of the list of accounts, indented. Paths below dir are written relative to it.
func itemLines(k keyPair, indent int, dir string) []string {
	pad := strings.Repeat(" ", indent)
	path := func(p filePath) string {
		if rel, err := filepath.Rel(dir, string(p)); dir != "" && err == nil && filepath.IsLocal(rel) {
			return yamlText(filepath.ToSlash(rel))
		}
		return yamlText(string(p))
	}
	lines := []string{pad + "- cert: " + path(k.Cert)}
	if k.ID != "" {
		lines = append(lines, pad+"  id: "+yamlText(string(k.ID)))
	}
	if len(k.Signer) == 0 {
		return append(lines, pad+"  key: "+path(k.Key))
	}
	lines = append(lines, pad+"  signer:")
	for _, arg := range k.Signer {
		lines = append(lines, pad+"    - "+yamlText(arg))
	}
	return lines
}

// apply returns the text with the items removed and added. It knows the ordinary forms: no such setting, or a list with one item
// after another on lines of their own.
func (e edition) apply(text, dir string) (string, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return "", err
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if text == "" {
		lines = nil
	}
	key, list, next, err := findAccounts(&doc, len(lines))
	if err != nil {
		return "", err
	}
	if list == nil {
		if e.add != nil {
			lines = append(append(lines, accountsKey+":"), itemLines(*e.add, 2, dir)...)
		}
		return strings.Join(lines, "\n") + "\n", nil
	}
	indent := list.Column - 1
	end := endOf(lines, next, indent)
	if e.add != nil {
		lines = slices.Insert(lines, end, itemLines(*e.add, indent, dir)...)
	}
	for _, i := range slices.Backward(e.remove) {
		from, to := list.Content[i].Line-1, end
		if i+1 < len(list.Content) {
			to = endOf(lines, list.Content[i+1].Line-1, indent)
		}
		if from >= to || !strings.HasPrefix(strings.TrimLeft(lines[from], " "), "-") {
			return "", errors.New("an item does not begin on a line of its own")
		}
		lines = slices.Delete(lines, from, to)
	}
	if e.add == nil && len(e.remove) == len(list.Content) {
		lines = slices.Delete(lines, key, key+1)
	}
	return strings.Join(lines, "\n") + "\n", nil
}

// findAccounts returns the line of the key, the list, and the line at which what follows it begins, all from 0. The list is nil
// if there is none.
func findAccounts(doc *yaml.Node, lines int) (key int, list *yaml.Node, next int, err error) {
	if len(doc.Content) == 0 {
		return 0, nil, lines, nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode || root.Style&yaml.FlowStyle != 0 {
		return 0, nil, 0, errors.New("the file is not a list of settings, one a line")
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value != accountsKey {
			continue
		}
		list = root.Content[i+1]
		if list.Kind != yaml.SequenceNode || list.Style&yaml.FlowStyle != 0 || len(list.Content) == 0 {
			return 0, nil, 0, errors.New("the accounts are not a list with one item a line")
		}
		next = lines
		if i+2 < len(root.Content) {
			next = root.Content[i+2].Line - 1
		}
		return root.Content[i].Line - 1, list, next, nil
	}
	return 0, nil, lines, nil
}

// endOf returns where an item ends whose successor begins at line next: before the empty lines and comments that stand above that.
func endOf(lines []string, next, indent int) int {
	for next > 0 {
		line := lines[next-1]
		words := strings.TrimLeft(line, " ")
		if strings.TrimSpace(words) != "" && (!strings.HasPrefix(words, "#") || len(line)-len(words) > indent) {
			break
		}
		next--
	}
	return next
}
