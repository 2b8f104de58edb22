package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent"
	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/azure"
	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/dir"
	"github.com/consign-transfer/consign/agent/store/gcs"
	"github.com/consign-transfer/consign/agent/store/s3"
	"github.com/consign-transfer/consign/token/problem"
)

// openExports opens the store of each export. It makes no request to a remote store. After an error nothing is open; the
// error names the place of the export.
func (a *app) openExports(exports []exportConfig, values []setting, log *zap.Logger) ([]agent.Export, error) {
	var out []agent.Export
	for i, e := range exports {
		st, err := a.openStore(e, log)
		if err != nil {
			closeStores(agent.Config{Exports: out, Logger: log})
			return nil, atExport(err, i, values)
		}
		x := e.export()
		x.Store = st
		out = append(out, x)
	}
	return out, nil
}

// atExport puts the place of export i before what is wrong with it.
func atExport(err error, i int, values []setting) error {
	p := problem.As(err)
	key := "exports." + strconv.Itoa(i) + "."
	at := slices.IndexFunc(values, func(s setting) bool { return strings.HasPrefix(s.Key, key) && strings.Contains(s.Origin, ":") })
	if p.Code != problem.BadConfig || at < 0 {
		return err
	}
	return &problem.Error{Code: p.Code, Detail: values[at].Origin + ": " + p.Sentence(), Remedy: p.Remedy, Cause: err}
}

// openStore opens the store of one export.
func (a *app) openStore(e exportConfig, log *zap.Logger) (store.Store, error) {
	kind, err := e.kind()
	if err != nil {
		return nil, err
	}
	if kind == kindDir {
		root, err := disk.Open(string(e.Dir))
		if err != nil {
			return nil, problem.Wrap(err, problem.BadConfig, "The folder %s of the container %s cannot be opened", quoted(string(e.Dir)), quoted(string(e.Container)))
		}
		return dir.Open(root, time.Now), nil
	}
	backend, prefix, err := a.openBackend(e, log)
	if err != nil {
		return nil, asConfig(err, "The store of the container %s cannot be opened", quoted(string(e.Container)))
	}
	return bucket.New(backend, bucket.Options{Where: "the container " + quoted(string(e.Container)), Prefix: prefix, Now: time.Now}), nil
}

// openBackend makes the client of a remote store, and returns it with the prefix that the container has in it.
func (a *app) openBackend(e exportConfig, log *zap.Logger) (bucket.Backend, string, error) {
	r := e.remote()
	if err := checkEndpoint("the container "+quoted(string(e.Container)), r.endpoint); err != nil {
		return nil, "", err
	}
	if r.credentials == gcs.Anonymous && e.GCS == nil {
		return nil, "", problem.New(problem.BadConfig, "A store is asked without credentials only where it is gcs")
	}
	file, err := a.secretFile(r.credentials, log)
	if err != nil {
		return nil, "", err
	}
	prefix := strings.Trim(r.prefix, "/")
	var b bucket.Backend
	switch {
	case e.S3 != nil:
		b, err = s3.NewBackend(s3.Config{
			Endpoint: r.endpoint, Region: e.S3.Region, Bucket: e.S3.Bucket, Style: s3.Style(e.S3.Style), Checksums: s3.Checksums(e.S3.Checksums),
			Credentials: file, Profile: e.S3.Profile, CA: string(e.S3.CA),
		})
	case e.Azure != nil:
		b, err = azure.NewBackend(azure.Config{
			Account: e.Azure.Account, Endpoint: r.endpoint, Container: e.Azure.Container, Credentials: file, CA: string(e.Azure.CA),
		})
	default:
		if r.credentials == gcs.Anonymous {
			file = gcs.Anonymous
		}
		below := prefix // as keys begin
		if below != "" {
			below += "/"
		}
		b, err = gcs.NewBackend(gcs.Config{Endpoint: r.endpoint, Bucket: e.GCS.Bucket, Prefix: below, Credentials: file, CA: string(e.GCS.CA)})
	}
	return b, prefix, err
}

// secretFile resolves the setting of a credential's file and tells of one that others can read.
func (a *app) secretFile(p secretPath, log *zap.Logger) (string, error) {
	name, err := p.file(a.getenv)
	if err != nil || name == "" {
		return "", err
	}
	if _, err := os.Stat(name); err != nil {
		return "", problem.Wrap(err, problem.BadConfig, "The credentials %s cannot be read", quoted(name))
	}
	if readByOthers(name) && log != nil {
		log.Warn("the credentials can be read by others; give the file the mode 0600", zap.String("file", filepath.Clean(name)))
	}
	return name, nil
}
