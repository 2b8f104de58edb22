package realstores

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// azureVersion is the version of the protocol that Do speaks.
const azureVersion = "2024-11-04"

// An Azure is a running Azure Blob server with one account.
type Azure struct {
	*Process
	Endpoint string // http://host:port/account, as the SDK calls a service URL
	Account  string
	Key      string // base64
}

// Azurite starts the blob part of Azurite with its data below dir.
func Azurite(ctx context.Context, dir string) (*Azure, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, fmt.Errorf("azurite needs node, which is not here: %w", err)
	}
	a := &Azure{Account: "consign" + secret()[:12], Key: base64.StdEncoding.EncodeToString([]byte(secret() + secret()))}
	p, addr, err := start(ctx, launch{
		name: azurite, dir: dir,
		env: []string{"AZURITE_ACCOUNTS=" + a.Account + ":" + a.Key, "AZURITE_DISABLE_TELEMETRY=1"},
		args: func(program, addr string) []string {
			host, port, _ := strings.Cut(addr, ":")
			return []string{
				node, program, "--blobHost", host, "--blobPort", port, "--location", dir,
				"--skipApiVersionCheck", "--silent", "--disableTelemetry",
			}
		},
		ready: func(ctx context.Context, addr string) error {
			at := *a
			at.Endpoint = "http://" + addr + "/" + a.Account
			_, err := at.Do(ctx, http.MethodGet, "/?comp=list", nil)
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	a.Process, a.Endpoint = p, "http://"+addr+"/"+a.Account
	return a, nil
}

// MakeContainer makes a container.
func (a *Azure) MakeContainer(ctx context.Context, name string) error {
	if _, err := a.Do(ctx, http.MethodPut, "/"+name+"?restype=container", nil); err != nil {
		return fmt.Errorf("making container %s: %w", name, err)
	}
	return nil
}

// Do sends one request, signed with the shared key, and returns the answer and
// all that it holds. target is a path below the account that is not escaped, with
// an optional query that is; head are pairs of name and value. An answer from
// 300 up is a *Refusal.
func (a *Azure) Do(ctx context.Context, method, target string, body []byte, head ...string) (*Answer, error) {
	host := strings.TrimSuffix(a.Endpoint, "/"+a.Account)
	req, err := newRequest(ctx, method, host, "/"+a.Account+target, body, head)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Ms-Version", azureVersion)
	req.Header.Set("X-Ms-Date", time.Now().UTC().Format(http.TimeFormat)) //nolint:forbidigo // the server compares it with its own clock
	if err := a.sign(req); err != nil {
		return nil, err
	}
	return do(req)
}

func (a *Azure) sign(req *http.Request) error {
	key, err := base64.StdEncoding.DecodeString(a.Key)
	if err != nil {
		return fmt.Errorf("decoding the account's key: %w", err)
	}
	length := ""
	if req.ContentLength > 0 {
		length = fmt.Sprint(req.ContentLength)
	}
	lines := []string{req.Method, req.Header.Get("Content-Encoding"), req.Header.Get("Content-Language"), length}
	for _, name := range []string{
		"Content-Md5", "Content-Type", "Date", "If-Modified-Since", "If-Match", "If-None-Match", "If-Unmodified-Since", "Range",
	} {
		lines = append(lines, req.Header.Get(name))
	}
	lines = append(lines, sortedLines(req.Header, "x-ms-")...)
	lines = append(lines, "/"+a.Account+req.URL.EscapedPath())
	lines = append(lines, sortedLines(req.URL.Query(), "")...)
	sum := hmacSHA256(key, strings.Join(lines, "\n"))
	req.Header.Set("Authorization", "SharedKey "+a.Account+":"+base64.StdEncoding.EncodeToString(sum))
	return nil
}

// sortedLines returns name:value of those whose name begins with prefix, in small letters.
func sortedLines(all map[string][]string, prefix string) []string {
	var lines []string
	for name, values := range all {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, prefix) {
			slices.Sort(values)
			lines = append(lines, lower+":"+strings.Join(values, ","))
		}
	}
	slices.Sort(lines)
	return lines
}
