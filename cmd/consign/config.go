package main

import (
	"time"

	"github.com/consign-transfer/consign/agent/policy"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// The structs below are the manuals of the three configuration files. Field by field: the setting, its
// default, its unit. Paths are relative to the folder of the file that sets them. Keys are files,
// never values.

// A cliConfig is the subscriber's: config.yaml.
type cliConfig struct {
	// Broker is the broker to order from. Both settings are needed.
	Broker struct {
		URL string         `koanf:"url"` // https://host:port
		ID  token.Identity `koanf:"id"`  // spiffe://domain/broker/name: who must answer there
	} `koanf:"broker"`
	// trust: the broker's domain at least; for 'receipt verify' those of both providers as well.
	trustConfig `koanf:",squash"`
	// Accounts are the subscriber's certificates, at most one a provider. Which provider it is for
	// stands in the certificate.
	Accounts []keyPair `koanf:"accounts"`
}

// A trustConfig is whom a participant believes, one trust domain apart from the other. All its files are read again when
// they change; what is not good is not used, and what was in use stays in use.
type trustConfig struct {
	// Trust names the bundle of root certificates of each trust domain.
	Trust map[token.Provider]filePath `koanf:"trust"`
	// CRLs names the revocation lists of trust domains: PEM, one list an authority, and beside each list that an
	// intermediate authority signed the certificate of that authority. Default none.
	CRLs map[token.Provider]filePath `koanf:"crls"`
	// CRLStale says what becomes of certificates whose list is past its end: refuse (none is accepted) or accept (the old
	// list counts on; the log says so). Default refuse.
	CRLStale stalePolicy `koanf:"crl_stale"`
	// Subscribers names, for each trust domain whose authorities issue certificates without a SPIFFE name, the file that
	// says whose these are; 'consign ca map' writes its lines. Default none: such certificates are refused.
	Subscribers map[token.Provider]filePath `koanf:"subscribers"`
	// Denied names a file of identities and serial numbers that are refused, whatever their authority says. Default none.
	Denied filePath `koanf:"denied"`
}

// A stalePolicy is refuse or accept; empty is refuse.
type stalePolicy string

// open reads all files.
func (c trustConfig) open() (*certs.Trust, error) {
	files := certs.TrustFiles{Bundles: names(c.Trust), CRLs: names(c.CRLs), Denied: string(c.Denied), Subscribers: names(c.Subscribers)}
	switch c.CRLStale {
	case "accept":
		files.Stale = certs.AcceptStale
	case "", "refuse":
	default:
		return nil, problem.New(problem.BadConfig, "The setting crl_stale is %s and must be refuse or accept", quoted(string(c.CRLStale)))
	}
	return files.Open()
}

func names(m map[token.Provider]filePath) map[token.Provider]string {
	out := make(map[token.Provider]string, len(m))
	for p, f := range m {
		out[p] = string(f)
	}
	return out
}

// A keyPair names a certificate chain (PEM, leaf first) and its private key, which is either in a file or in
// the hands of a process: exactly one of the two.
type keyPair struct {
	Cert filePath `koanf:"cert"`
	Key  filePath `koanf:"key"`
	// Signer is the program that signs with the key, and its arguments: docs/spec/signer.md. The program is an absolute path or
	// is looked for in PATH. No shell sees it.
	Signer []string `koanf:"signer"`
	// ID is whose the certificate is, if that has no SPIFFE name and the provider maps it. Default: what stands in it.
	ID token.Identity `koanf:"id"`
}

// An identityConfig is who a daemon is. The files are read again when they change and at SIGHUP.
type identityConfig struct {
	Cert   filePath `koanf:"cert"`
	Key    filePath `koanf:"key"`
	Signer []string `koanf:"signer"` // instead of key, as an account has it
	// RenewURL is the address of the provider's 'consign ca serve', where the certificate is renewed at
	// two thirds of its life. Optional: without it somebody else must replace the files.
	RenewURL string `koanf:"renew_url"`
	// ACME is where the certificate is got and renewed instead, at two thirds of its life too. Optional.
	ACME *acmeConfig `koanf:"acme"`
}

// An acmeConfig is how a certificate comes from an ACME authority, such as step-ca. If there is none at the first start, it
// is got before anything else.
type acmeConfig struct {
	// Directory is the https URL of the authority's directory.
	Directory string `koanf:"directory"`
	// Root is the bundle that the authority's own web certificate is checked with. Default: the system's.
	Root filePath `koanf:"root"`
	// ID is whom the certificate must name: spiffe://provider/role/name. A certificate of anybody else is not used.
	ID token.Identity `koanf:"id"`
	// Identifier is the DNS name or IP address that the authority checks; its template maps it to ID.
	Identifier string `koanf:"identifier"`
	// Challenge is how it checks: http-01 or tls-alpn-01. Default http-01.
	Challenge string `koanf:"challenge"`
	// Listen is the TCP address where a challenge is answered while it is open. Default: port 80 or 443 of all addresses.
	Listen string `koanf:"listen"`
	// Account is the file of the account's key, made at its first use. Default: account.pem beside the certificate.
	Account filePath `koanf:"account"`
	// Contact is for the authority's operator, as in mailto:ops@example.org. Optional.
	Contact string `koanf:"contact"`
	// AcceptTerms accepts the authority's terms of service, if it has any. Default false.
	AcceptTerms bool `koanf:"accept_terms"`
}

// A brokerConfig is the broker's: broker.yaml.
type brokerConfig struct {
	Identity identityConfig `koanf:"identity"`
	// trust: each provider's domain, and the broker's own.
	trustConfig `koanf:",squash"`
	// Federation says where providers publish their trust bundles. Default none: their files are kept by somebody else.
	Federation map[token.Provider]federationConfig `koanf:"federation"`
	// Providers are those that take part. Each needs an entry in trust.
	Providers []token.Provider `koanf:"providers"`
	// Listen is the HTTPS address for subscribers and agents. Default 127.0.0.1:7443.
	Listen string `koanf:"listen"`
	// Admin is the plain HTTP address of /livez, /readyz and /metrics; empty is none. Default 127.0.0.1:7444.
	Admin string `koanf:"admin"`
	// State is the folder of database and capability key, made by 'consign broker init'.
	State filePath `koanf:"state"`
	// CapabilityLife is how long a capability lives before it must be renewed, 1m to 6h. Default 15m.
	CapabilityLife time.Duration `koanf:"capability_life"`
	// KeyAhead is how long a new capability key is published before it signs. Default 20m: agents fetch keys every 10m.
	KeyAhead time.Duration `koanf:"key_ahead"`
	// LeaseGrace is how long an agent may be away before its batches are given to another. Default 10m.
	LeaseGrace time.Duration `koanf:"lease_grace"`
	// Places says where stores are, by a code of ISO 3166 such as DE or DE-BY: of a provider, as in north, or of one of its containers, as in
	// north:/archive, which counts more. It binds orders only where the agents say the same. Default: unknown, which no placement permits.
	Places map[string]space.Region `koanf:"places"`
	// AuditKeep is how long audit records stay in the database, as 2160h; older ones are moved to files in the folder audit of the state
	// folder. Default 0: for ever.
	AuditKeep time.Duration `koanf:"audit_keep"`
	// Webhooks says which addresses subscribers may have called.
	Webhooks struct {
		// Allow are networks in CIDR form that may be called beside the public internet. Default none.
		Allow []string `koanf:"allow"`
		// Roots is a bundle of authorities that receivers' certificates may be of, in place of the system's. Default: the system's.
		Roots filePath `koanf:"roots"`
	} `koanf:"webhooks"`
	// Administrators are subscribers who may take over what nobody owns, and keep the groups: each at its own provider and nowhere
	// else. Default none.
	Administrators []token.Identity `koanf:"administrators"`
	// MetadataMaxItems bounds the user metadata of one object or container, in items. Default 256. 0: what the broker can hold at all.
	MetadataMaxItems int `koanf:"metadata_max_items"`
	// MetadataMaxItemSize bounds one item of it, name and value. Default 8KiB.
	MetadataMaxItemSize size `koanf:"metadata_max_item_size"`
	// MetadataMaxTotalSize bounds all items of it together. Default 64KiB.
	MetadataMaxTotalSize size `koanf:"metadata_max_total_size"`
	// EnterpriseNumber is IANA's, of who runs the broker: it stands in the CDMI identifiers that are given out. Default 0.
	EnterpriseNumber int `koanf:"enterprise_number"`
	// LogLevel is debug, info, warn or error. Default info.
	LogLevel string `koanf:"log_level"`
}

// An agentConfig is an agent's: agent.yaml.
type agentConfig struct {
	Identity identityConfig `koanf:"identity"`
	// trust: the own provider's domain, that of each provider to exchange objects with, and the brokers'.
	trustConfig `koanf:",squash"`
	// Federation says where other providers publish their trust bundles. Default none: their files are kept by somebody else.
	Federation map[token.Provider]federationConfig `koanf:"federation"`
	// Brokers are those whose tasks are taken.
	Brokers []brokerAddress `koanf:"brokers"`
	// Listen is the UDP address at which other agents dial; empty: this agent only dials.
	Listen string `koanf:"listen"`
	// Advertise is what other agents are told to dial, host:port each. Default: listen, if it names a host.
	Advertise []string `koanf:"advertise"`
	// Dial says which peers may be dialled.
	Dial struct {
		// Allow are networks in CIDR form. Default none: every address may be dialled but loopback,
		// link-local, multicast and metadata addresses. With it: only addresses within.
		Allow []string `koanf:"allow"`
	} `koanf:"dial"`
	// Exports are the containers of this agent. Who may do what there, and Groups, are read again when the files change and at SIGHUP.
	Exports []exportConfig `koanf:"exports"`
	// Groups are groups of subscribers of the own provider, as rules name them.
	Groups policy.Groups `koanf:"groups"`
	// GroupsFile is a YAML file of more groups, NAME: [identities], as a directory service may write it. Default none.
	GroupsFile filePath `koanf:"groups_file"`
	// Lanes is the number of connections to each peer. Default 4.
	Lanes int `koanf:"lanes"`
	// Slots is the number of batches taken at once, as source and as destination each. Default 4.
	Slots int `koanf:"slots"`
	// State is the folder of journals. It is made at the first start.
	State filePath `koanf:"state"`
	// Rate bounds the bytes a second that this agent receives, and those that it sends, for example 100MiB; 0 is no bound. Default 0.
	Rate size `koanf:"rate"`
	// Admin is the plain HTTP address of /livez, /readyz and /metrics; empty is none. Default none.
	Admin string `koanf:"admin"`
	// LogLevel is debug, info, warn or error. Default info.
	LogLevel string `koanf:"log_level"`
}

// A brokerAddress is a broker that an agent listens to.
type brokerAddress struct {
	ID  token.Identity `koanf:"id"`
	URL string         `koanf:"url"`
}
