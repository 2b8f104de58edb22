package main

import (
	"net/url"
	"path/filepath"
	"strings"

	"github.com/consign-transfer/consign/agent/store/gcs"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// An exportConfig is one container: a store, of which there is exactly one of dir, s3, azure and gcs, and for whom.
type exportConfig struct {
	Container token.Container `koanf:"container"`
	// Dir is a folder of a file system that has hard links: local, or NFS.
	Dir   filePath     `koanf:"dir"`
	S3    *s3Config    `koanf:"s3"`
	Azure *azureConfig `koanf:"azure"`
	GCS   *gcsConfig   `koanf:"gcs"`
	// AllowUnsafeStore lets the agent start although the store does not create exclusively: it then looks before it
	// creates, somebody else can come between, and each receipt says create_only: agent. Default false: such a store is refused.
	AllowUnsafeStore bool `koanf:"allow_unsafe_store"`
	Read             bool `koanf:"read"`   // objects may be listed and read
	Create           bool `koanf:"create"` // objects may be created; never replaced
	// Subscribers may use it, as identities. Default: every subscriber of the own provider.
	Subscribers []token.Identity `koanf:"subscribers"`
	// Rules say it all in detail, instead of read, create and subscribers.
	Rules []ruleConfig `koanf:"rules"`
	// Brokers may ask for it, as identities. Default: all of brokers.
	Brokers []token.Identity `koanf:"brokers"`
	// Place is where the store is, by a code of ISO 3166 such as DE or DE-BY. It binds orders only where the broker says the same. Default:
	// nothing is said, and no placement of metadata permits it.
	Place space.Region `koanf:"place"`
	// Owner is whose the container is, as an identity of any provider: brokers that know no owner of it yet take this one. Default: nobody.
	Owner token.Identity `koanf:"owner"`
	// Session are brokers on whose word alone the rules apply: for clients that cannot sign, who show their certificate to the broker. Whoever
	// holds such a broker's key can then do here what any subscriber may. Default: none.
	Session []token.Identity `koanf:"session"`
}

// An s3Config is a bucket of Amazon S3 or of a store that speaks its protocol.
type s3Config struct {
	Bucket string `koanf:"bucket"` // needed
	// Prefix is where in the bucket the container begins, as in archive/2026. Default: the whole bucket.
	Prefix string `koanf:"prefix"`
	// Endpoint is https://host[:port] of the service; http is for loopback and closed networks. Default: Amazon's of the region.
	Endpoint string `koanf:"endpoint"`
	Region   string `koanf:"region"` // default: the environment's, else us-east-1
	// Style is how the bucket is addressed: path (endpoint/bucket), virtual (bucket.endpoint), or auto, which is virtual at
	// Amazon and path elsewhere. Default auto.
	Style string `koanf:"style"`
	// Checksums is how parts are guarded over https: trailer (CRC-32C behind each part), or none for services that take no
	// trailers. Default trailer.
	Checksums string `koanf:"checksums"`
	// Credentials is a file of two lines, the access key and the secret key, or one in the form of ~/.aws/credentials. It is read
	// again when it changes. Default: the usual chain: AWS_* variables, ~/.aws/credentials, web identity, the role of the task, pod
	// or instance.
	Credentials secretPath `koanf:"credentials"`
	Profile     string     `koanf:"profile"` // the section of credentials; default "default"
	CA          filePath   `koanf:"ca"`      // root certificates (PEM) of the service, instead of the system's
}

// An azureConfig is a container of Azure Blob Storage.
type azureConfig struct {
	Container string `koanf:"container"` // needed
	Prefix    string `koanf:"prefix"`    // where in it ours begins; default: all of it
	// Account is the storage account. It is needed unless a connection string names it, or AZURE_STORAGE_ACCOUNT.
	Account string `koanf:"account"`
	// Endpoint is the address of the account's blobs. Default https://ACCOUNT.blob.core.windows.net.
	Endpoint string `koanf:"endpoint"`
	// Credentials is a file with a connection string, the account's key, or a SAS token. Default: the usual chain:
	// AZURE_STORAGE_* and AZURE_CLIENT_* variables, workload identity, managed identity, the command line of Azure.
	Credentials secretPath `koanf:"credentials"`
	CA          filePath   `koanf:"ca"` // root certificates (PEM) of the service, instead of the system's
}

// A gcsConfig is a bucket of Google Cloud Storage.
type gcsConfig struct {
	Bucket string `koanf:"bucket"` // needed
	Prefix string `koanf:"prefix"` // where in it the container begins; default: the whole bucket
	// Endpoint is for emulators and private gateways. Default: Google's.
	Endpoint string `koanf:"endpoint"`
	// Credentials is a file of a service account or of workload identity federation (JSON). Default: the SDK's chain:
	// GOOGLE_APPLICATION_CREDENTIALS, gcloud's, the service account of the instance. The word none sends none, for emulators.
	Credentials secretPath `koanf:"credentials"`
	CA          filePath   `koanf:"ca"` // root certificates (PEM) of the service, instead of the system's
}

// Kinds of stores, as settings and flags name them.
const (
	kindDir   = "dir"
	kindS3    = "s3"
	kindAzure = "azure"
	kindGCS   = "gcs"
)

// kind returns which store the export names; problem.BadConfig unless it is exactly one.
func (e exportConfig) kind() (string, error) {
	var named []string
	for _, k := range []struct {
		kind string
		is   bool
	}{{kindDir, e.Dir != ""}, {kindS3, e.S3 != nil}, {kindAzure, e.Azure != nil}, {kindGCS, e.GCS != nil}} {
		if k.is {
			named = append(named, k.kind)
		}
	}
	if len(named) == 1 {
		return named[0], nil
	}
	many := orExample(strings.Join(named, " and "), "none")
	return "", problem.New(problem.BadConfig, "The export of the container %s must name exactly one store, dir, s3, azure or gcs, and names %s",
		quoted(string(e.Container)), many)
}

// A remoteConfig is what the configurations of all remote stores have.
type remoteConfig struct {
	endpoint, prefix string
	credentials      secretPath
}

func (e exportConfig) remote() remoteConfig {
	switch {
	case e.S3 != nil:
		return remoteConfig{e.S3.Endpoint, e.S3.Prefix, e.S3.Credentials}
	case e.Azure != nil:
		return remoteConfig{e.Azure.Endpoint, e.Azure.Prefix, e.Azure.Credentials}
	case e.GCS != nil:
		return remoteConfig{e.GCS.Endpoint, e.GCS.Prefix, e.GCS.Credentials}
	}
	return remoteConfig{}
}

// address is the store for people: where it is, and nothing that is secret.
func (e exportConfig) address() string {
	under := func(head, bucket, prefix string) string {
		return head + strings.TrimSuffix(bucket+"/"+prefix, "/")
	}
	switch {
	case e.S3 != nil && e.S3.Endpoint != "":
		return under("s3 "+strings.TrimSuffix(e.S3.Endpoint, "/")+"/", e.S3.Bucket, e.S3.Prefix)
	case e.S3 != nil:
		return under("s3://", e.S3.Bucket, e.S3.Prefix)
	case e.Azure != nil && e.Azure.Endpoint != "":
		return under("azure "+strings.TrimSuffix(e.Azure.Endpoint, "/")+"/", e.Azure.Container, e.Azure.Prefix)
	case e.Azure != nil:
		return under("azure "+e.Azure.Account+"/", e.Azure.Container, e.Azure.Prefix)
	case e.GCS != nil:
		return under("gs://", e.GCS.Bucket, e.GCS.Prefix)
	}
	return "dir " + string(e.Dir)
}

// systemdCredential begins the setting of a credential that systemd hands over.
const systemdCredential = "systemd:"

// secretsBelong says where a secret may be.
const secretsBelong = "Put it into a file of its own with the mode 0600 and name that with 'credentials: FILE', or hand it over as a systemd " +
	"credential with 'credentials: systemd:NAME', or set it in the environment of the service as the SDK reads it"

// namesSecret reports whether people call secrets so in other programs' configurations.
func namesSecret(key string) bool {
	key = strings.NewReplacer("_", "", "-", "", ".", "").Replace(strings.ToLower(key))
	for _, word := range []string{
		"secret", "password", "passphrase", "passwd", "token", "accesskey", "accountkey", "sharedkey", "privatekey", "apikey", "storagekey",
		"hmac", "connectionstring", "sas", "sastoken", "authkey",
	} {
		if key == word || len(word) > 4 && strings.Contains(key, word) {
			return true
		}
	}
	return false
}

// checkEndpoint returns problem.BadConfig unless an address of a store is empty or names a service and no secret.
// The error does not repeat it.
func checkEndpoint(what, endpoint string) error {
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return problem.New(problem.BadConfig, "The endpoint of %s is not of the form https://host", what)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return problem.New(problem.BadConfig, "The endpoint of %s holds more than an address, perhaps a secret. %s", what, secretsBelong)
	}
	return nil
}

// file resolves a secretPath. The empty one is empty. getenv is asked for where systemd keeps its credentials.
func (p secretPath) file(getenv func(string) string) (string, error) {
	name, ok := strings.CutPrefix(string(p), systemdCredential)
	switch {
	case !ok && p == gcs.Anonymous: // only gcs has it, where it is no file
		return "", nil
	case !ok:
		return string(p), nil
	}
	if name == "" || name != filepath.Base(name) || name == "." || name == ".." {
		return "", problem.New(problem.BadConfig, "%s does not name a systemd credential, as in systemd:store", quoted(string(p)))
	}
	dir := getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return "", &problem.Error{
			Code: problem.BadConfig, Detail: "The configuration names " + quoted(string(p)) + ", and systemd gave this process no credentials",
			Remedy: "Put LoadCredential=" + name + ":FILE into the unit and start it with systemd, or name a file.",
		}
	}
	return filepath.Join(dir, name), nil
}
