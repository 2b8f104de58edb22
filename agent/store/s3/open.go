package s3

import (
	"cmp"

	"github.com/consign-transfer/consign/agent/store/bucket"
)

// Open returns the store of a bucket. It makes no request, and what is wrong with a Config is problem.BadConfig. Where is the
// endpoint's host unless opts says otherwise.
func Open(conf Config, opts bucket.Options) (*bucket.Store, error) {
	b, err := newBackend(conf)
	if err != nil {
		return nil, err
	}
	opts.Where = cmp.Or(opts.Where, b.host)
	return bucket.New(b, opts), nil
}
