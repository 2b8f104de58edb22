package realstores

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An S3 is a running S3 server. It takes buckets in the path only.
type S3 struct {
	*Process
	Endpoint  string // http://host:port
	AccessKey string
	SecretKey string
	Region    string
}

// Versitygw starts versitygw on a folder below dir. Its objects are files, its
// metadata extended attributes, or files beside if the file system has none.
func Versitygw(ctx context.Context, dir string) (*S3, error) {
	data := filepath.Join(dir, "data")
	args := []string{"--quiet", "posix"}
	if err := makeFolder(data); err != nil {
		return nil, err
	}
	if unix.Setxattr(data, "user.consign.probe", []byte{1}, 0) != nil {
		side := filepath.Join(dir, "sidecar")
		if err := makeFolder(side); err != nil {
			return nil, err
		}
		args = append(args, "--sidecar", side)
	}
	return startS3(ctx, versitygw, dir, func(s *S3, addr string) ([]string, []string) {
		return append(append([]string{"--port", addr, "--region", s.Region}, args...), data),
			[]string{"ROOT_ACCESS_KEY=" + s.AccessKey, "ROOT_SECRET_KEY=" + s.SecretKey}
	})
}

// RcloneS3 starts `rclone serve s3` on a folder below dir. It keeps the metadata
// of objects and the parts of uploads in memory only, and lists no uploads.
func RcloneS3(ctx context.Context, dir string) (*S3, error) {
	data := filepath.Join(dir, "data")
	if err := makeFolder(data); err != nil {
		return nil, err
	}
	return startS3(ctx, rclone, dir, func(s *S3, addr string) ([]string, []string) {
		return []string{
			"serve", "s3", "--addr", addr, "--auth-key", s.AccessKey + "," + s.SecretKey, "--vfs-cache-mode", "off",
			"--config", filepath.Join(dir, "rclone.conf"), "--cache-dir", filepath.Join(dir, "cache"), data,
		}, nil
	})
}

// GoFakeS3 starts gofakes3 with everything in memory. It looks at no
// credentials, and it ignores If-None-Match when an upload is completed: it is a
// store that must be refused.
func GoFakeS3(ctx context.Context, dir string) (*S3, error) {
	return startS3(ctx, gofakes3, dir, func(s *S3, addr string) ([]string, []string) {
		return []string{"-backend", "memory", "-host", addr, "-initialbucket", s.AccessKey}, nil
	})
}

// startS3 starts a server with new credentials. What only it knows, the access key
// or a bucket of that name, tells it from another that may have got its port.
func startS3(ctx context.Context, name, dir string, args func(s *S3, addr string) (argv, env []string)) (*S3, error) {
	s := &S3{AccessKey: secret(), SecretKey: secret(), Region: "us-east-1"}
	_, env := args(s, "")
	p, addr, err := start(ctx, launch{
		name: name, dir: dir, env: env,
		args: func(program, addr string) []string {
			argv, _ := args(s, addr)
			return append([]string{program}, argv...)
		},
		ready: func(ctx context.Context, addr string) error {
			path := "/"
			if name == gofakes3 {
				path = "/" + s.AccessKey
			}
			at := *s
			at.Endpoint = "http://" + addr
			_, err := at.Do(ctx, http.MethodGet, path, nil)
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	s.Process, s.Endpoint = p, "http://"+addr
	return s, nil
}

// MakeBucket makes a bucket.
func (s *S3) MakeBucket(ctx context.Context, name string) error {
	if _, err := s.Do(ctx, http.MethodPut, "/"+name, nil); err != nil {
		return fmt.Errorf("making bucket %s: %w", name, err)
	}
	return nil
}

// Do sends one request, signed with version 4, and returns the answer and all
// that it holds. target is a path that is not escaped, with an optional query that
// is; head are pairs of name and value. An answer from 300 up is a *Refusal.
func (s *S3) Do(ctx context.Context, method, target string, body []byte, head ...string) (*Answer, error) {
	req, err := newRequest(ctx, method, s.Endpoint, target, body, head)
	if err != nil {
		return nil, err
	}
	s.sign(req, body, time.Now().UTC()) //nolint:forbidigo // the server compares it with its own clock
	return do(req)
}

// sign signs every header that req has, and its body.
func (s *S3) sign(req *http.Request, body []byte, now time.Time) {
	sum := sha256.Sum256(body)
	req.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
	req.Header.Set("X-Amz-Date", now.Format("20060102T150405Z"))
	names := []string{"host"}
	lines := map[string]string{"host": req.URL.Host}
	for name, values := range req.Header {
		lower := strings.ToLower(name)
		names = append(names, lower)
		lines[lower] = strings.TrimSpace(strings.Join(values, ","))
	}
	slices.Sort(names)
	var canonical strings.Builder
	fmt.Fprintf(&canonical, "%s\n%s\n%s\n", req.Method, req.URL.EscapedPath(), strings.ReplaceAll(req.URL.Query().Encode(), "+", "%20"))
	for _, n := range names {
		fmt.Fprintf(&canonical, "%s:%s\n", n, lines[n])
	}
	signed := strings.Join(names, ";")
	fmt.Fprintf(&canonical, "\n%s\n%x", signed, sum)

	day := now.Format("20060102")
	scope := day + "/" + s.Region + "/s3/aws4_request"
	toSign := fmt.Sprintf("AWS4-HMAC-SHA256\n%s\n%s\n%x", now.Format("20060102T150405Z"), scope, sha256.Sum256([]byte(canonical.String())))
	key := []byte("AWS4" + s.SecretKey)
	for _, step := range []string{day, s.Region, "s3", "aws4_request", toSign} {
		key = hmacSHA256(key, step)
	}
	req.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%x", s.AccessKey, scope, signed, key))
}

func hmacSHA256(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// newRequest makes a request whose path is escaped as S3 signs it: everything
// but letters, digits and -_.~/ .
func newRequest(ctx context.Context, method, endpoint, target string, body []byte, head []string) (*http.Request, error) {
	path, query, _ := strings.Cut(target, "?")
	var escaped strings.Builder
	for _, b := range []byte(path) {
		if b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || strings.IndexByte("-_.~/", b) >= 0 {
			escaped.WriteByte(b)
		} else {
			fmt.Fprintf(&escaped, "%%%02X", b)
		}
	}
	base, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("reading the endpoint: %w", err)
	}
	base.Path, base.RawPath, base.RawQuery = path, escaped.String(), query
	req, err := http.NewRequestWithContext(ctx, method, base.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("preparing %s %s: %w", method, target, err)
	}
	for i := 0; i+1 < len(head); i += 2 {
		req.Header.Set(head[i], head[i+1])
	}
	req.Close = true // leave no goroutine of a connection behind
	return req, nil
}
