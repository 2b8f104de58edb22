package azure

import (
	"encoding/base64"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/consign-transfer/consign/token/problem"
)

// maxSecret bounds a file of credentials, in bytes.
const maxSecret = 64 << 10

// A credential is a key, or a SAS token, or neither: then the SDK's chain is asked.
type credential struct {
	account  string // whose key it is
	key      string // base64
	sas      string // a query, without '?'
	endpoint string // of a connection string; may be empty
}

// credential finds what the configuration names, or else the environment.
func (c Config) credential() (credential, error) {
	account := c.Account
	if account == "" {
		account = os.Getenv("AZURE_STORAGE_ACCOUNT")
	}
	if c.Credentials != "" {
		text, err := readSecret(c.Credentials)
		if err != nil {
			return credential{}, problem.Wrap(err, problem.BadConfig, "The credentials of the store cannot be read")
		}
		return parseSecret(account, text)
	}
	if s := os.Getenv("AZURE_STORAGE_CONNECTION_STRING"); s != "" {
		return parseConnection(account, s)
	}
	if s := os.Getenv("AZURE_STORAGE_KEY"); s != "" {
		return parseKey(account, s)
	}
	if s := os.Getenv("AZURE_STORAGE_SAS_TOKEN"); s != "" {
		return credential{account: account, sas: strings.TrimPrefix(s, "?")}, nil
	}
	return credential{account: account}, nil
}

func readSecret(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret))
	return strings.TrimSpace(string(b)), err
}

// parseSecret tells by its form what a file of credentials holds.
func parseSecret(account, text string) (credential, error) {
	query := strings.TrimPrefix(text, "?")
	switch {
	case strings.Contains(text, ";") && (strings.Contains(text, "AccountName=") || strings.Contains(text, "BlobEndpoint=")):
		return parseConnection(account, text)
	case strings.HasPrefix(query, "sig=") || strings.Contains(query, "&sig="):
		return credential{account: account, sas: query}, nil
	}
	return parseKey(account, text)
}

func parseKey(account, text string) (credential, error) {
	if _, err := base64.StdEncoding.DecodeString(text); err != nil || text == "" {
		// The cause is not wrapped: it may repeat the secret.
		return credential{}, problem.New(problem.BadConfig,
			"The credentials of the store are neither a connection string, nor a SAS token, nor an account's key in base64")
	}
	if account == "" {
		return credential{}, problem.New(problem.BadConfig, "The store has the key of an account and not the account's name")
	}
	return credential{account: account, key: text}, nil
}

// parseConnection reads a connection string: NAME=VALUE with ';' between them.
func parseConnection(account, text string) (credential, error) {
	pairs := map[string]string{}
	for pair := range strings.SplitSeq(strings.Trim(text, "; "), ";") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return credential{}, problem.New(problem.BadConfig, "The connection string of the store is not of NAME=VALUE with ';' between them")
		}
		pairs[name] = value
	}
	c := credential{account: pairs["AccountName"], key: pairs["AccountKey"], endpoint: pairs["BlobEndpoint"]}
	if c.key == "" {
		c.sas = strings.TrimPrefix(pairs["SharedAccessSignature"], "?")
	}
	switch {
	case c.key == "" && c.sas == "":
		return credential{}, problem.New(problem.BadConfig, "The connection string of the store has no AccountKey and no SharedAccessSignature")
	case account != "" && c.account != "" && account != c.account:
		return credential{}, problem.New(problem.BadConfig, "The connection string of the store is for another account than the one that is named")
	case c.account == "":
		c.account = account
	}
	if c.key != "" {
		if _, err := parseKey(c.account, c.key); err != nil {
			return credential{}, err
		}
	}
	if c.endpoint == "" && c.account != "" && pairs["EndpointSuffix"] != "" {
		proto := pairs["DefaultEndpointsProtocol"]
		if proto == "" {
			proto = "https"
		}
		c.endpoint = proto + "://" + c.account + ".blob." + pairs["EndpointSuffix"]
	}
	return c, nil
}

// url is the address of the container. What the configuration says goes before what a connection string says.
func (c Config) url(cred credential) (*url.URL, error) {
	at := c.Endpoint
	if at == "" {
		at = cred.endpoint
	}
	if at == "" {
		if cred.account == "" {
			return nil, problem.New(problem.BadConfig, "The store names neither an account nor an endpoint")
		}
		at = "https://" + cred.account + ".blob.core.windows.net"
	}
	u, err := url.Parse(at)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.User != nil {
		// The cause is not wrapped: a URL may hold a secret.
		return nil, problem.New(problem.BadConfig, "The endpoint of the store is not of the form https://HOST[/PATH]")
	}
	return u.JoinPath(c.Container), nil
}
