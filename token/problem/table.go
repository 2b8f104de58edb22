package problem

// The codes. Text and numbers are in Table.
const (
	Internal        Code = "internal"
	Malformed       Code = "malformed"
	UnknownField    Code = "unknown-field"
	TooLarge        Code = "too-large"
	BadName         Code = "bad-name"
	BadAddress      Code = "bad-address"
	BadConfig       Code = "bad-config"
	Usage           Code = "usage"
	Timeout         Code = "timeout"
	Cancelled       Code = "cancelled"
	Unavailable     Code = "unavailable"
	Overloaded      Code = "overloaded"
	NotFound        Code = "not-found"
	Missing         Code = "missing"
	NotPermitted    Code = "insufficient-privileges"
	Hidden          Code = "not-found-or-forbidden"
	Conflict        Code = "conflict"
	UnknownProvider Code = "unknown-provider"
	NoContainer     Code = "unknown-container"
	AgentAbsent     Code = "agent-absent"
	NoListener      Code = "no-listener"
	LeaseLost       Code = "lease-lost"

	CertMissing  Code = "certificate-missing"
	CertExpired  Code = "certificate-expired"
	CertNotYet   Code = "certificate-not-yet-valid"
	CertUnknown  Code = "certificate-unknown"
	CertMisused  Code = "certificate-misused"
	CertMismatch Code = "certificate-wrong-identity"
	CertRevoked  Code = "certificate-revoked"
	CRLStale     Code = "revocation-list-stale"
	IDDenied     Code = "identity-denied"

	BadSignature   Code = "bad-signature"
	WrongStatement Code = "wrong-statement"
	UnknownKey     Code = "unknown-key"
	NotCanonical   Code = "not-canonical"

	OrderExpired    Code = "order-expired"
	OrderNotCovered Code = "order-does-not-cover"
	OrderUnsigned   Code = "order-not-signed-by-account"
	OrderSpent      Code = "order-spent"
	OrderNotYet     Code = "order-not-yet-valid"
	OrderWithdrawn  Code = "order-withdrawn"
	OrderNotDue     Code = "order-run-not-due"

	CapExpired    Code = "capability-expired"
	CapNotYet     Code = "capability-not-yet-valid"
	CapNotYours   Code = "capability-not-yours"
	CapAudience   Code = "capability-wrong-audience"
	CapManifest   Code = "capability-wrong-manifest"
	CapSpent      Code = "capability-spent"
	CapStale      Code = "capability-stale"
	CapOverBudget Code = "capability-over-budget"
	CapTooLong    Code = "capability-too-long-lived"
	CapRevoked    Code = "capability-revoked"
	ForeignPeer   Code = "foreign-peer"
	UnknownBroker Code = "unknown-broker"
	PolicyRefused Code = "refused-by-policy"

	Taken          Code = "taken"
	Claimed        Code = "claimed"
	Changed        Code = "changed"
	Corrupt        Code = "corrupt"
	DigestDiffers  Code = "digest-differs"
	Disputed       Code = "disputed"
	DiskFull       Code = "disk-full"
	Unreadable     Code = "unreadable"
	Unwritable     Code = "unwritable"
	Skipped        Code = "skipped"
	Untried        Code = "untried"
	NotExclusive   Code = "store-not-exclusive"
	PeerUnreached  Code = "peer-unreachable"
	PeerMisbehaved Code = "peer-misbehaved"
	Draining       Code = "draining"
	Partial        Code = "partial"
	JoinSpent      Code = "join-token-spent"
	JoinRefused    Code = "join-token-refused"
	StoreAway      Code = "store-unavailable"
	ClockSkewed    Code = "clock-skewed"
	NotLinked      Code = "account-not-linked"
	SignerFailed   Code = "signer-failed"
	LinkRefused    Code = "link-refused"
	EnrolFailed    Code = "enrolment-failed"
	HookRefused    Code = "webhook-refused"

	PlacementRefused Code = "placement-refused"
	UnderRetention   Code = "under-retention"
	OnHold           Code = "on-hold"
	QuotaExceeded    Code = "quota-exceeded"
	Outdated         Code = "precondition-failed"

	NotOffered    Code = "not-offered"
	NotAcceptable Code = "not-acceptable"
	Unsanitizable Code = "sanitization-unavailable"
	NotEmpty      Code = "not-empty"
)

// Exit codes of the command line; the table in docs/spec/problems.md.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitNotFound    = 3
	ExitDenied      = 4
	ExitTemporary   = 5
	ExitExists      = 6
	ExitIntegrity   = 7
	ExitPartial     = 8
	ExitWaitTimeout = 75
	ExitInterrupted = 130
)

// Lookup returns the row of code; an unknown code gets the row of Internal, so that a
// newer peer's code is a failure and never a success.
func Lookup(code Code) Kind {
	for _, k := range table {
		if k.Code == code {
			return k
		}
	}
	return table[0]
}

// ByNumber returns the row with that number and whether there is one.
func ByNumber(n uint64) (Kind, bool) {
	for _, k := range table {
		if k.Number == n {
			return k, true
		}
	}
	return Kind{}, false
}

// Table returns a copy of all rows in order of publication.
func Table() []Kind { return append([]Kind(nil), table...) }

// table is never changed at run time. Append only: a row keeps its number for ever.
var table = []Kind{
	{Internal, 1, 500, ExitFailed, Later, "Something went wrong inside", "Try again; if it persists, give the incident id to the operator."},
	{Malformed, 2, 400, ExitUsage, Never, "The request could not be read", "Correct the request; the specification is in docs/spec."},
	{UnknownField, 3, 400, ExitUsage, Never, "The request has a field that does not exist", "Remove or correct the field that is named."},
	{TooLarge, 4, 413, ExitUsage, Never, "The request is larger than its limit", "Send less at once; the limits are in docs/spec."},
	{BadName, 5, 400, ExitUsage, Never, "The object name is not allowed", "Use UTF-8 in NFC, 1 to 1024 bytes, without control characters, backslash, or empty, '.' or '..' segments."},
	{BadAddress, 6, 400, ExitUsage, Never, "The address is not of the form provider:/container/name", "Write it as provider:/container/name."},
	{BadConfig, 7, 400, ExitUsage, Never, "The configuration is not valid", "Correct the setting that is named and start again."},
	{Usage, 8, 400, ExitUsage, Never, "The command was not understood", "See the command's --help."},
	{Timeout, 9, 504, ExitTemporary, Later, "It took longer than the time that was given", "Try again, or wait longer."},
	{Cancelled, 10, 409, ExitFailed, Never, "It was cancelled", "Order it again if it is still wanted."},
	{Unavailable, 11, 503, ExitTemporary, Later, "The broker cannot be reached", "Check the broker's address and that it runs; running transfers go on meanwhile."},
	{Overloaded, 12, 429, ExitTemporary, Later, "Too many requests at once", "Try again a little later."},
	{NotFound, 13, 404, ExitNotFound, Never, "There is no such thing", "Check the identifier."},
	{Missing, 14, 404, ExitNotFound, Never, "There is no such object at the source", "Check the name with 'consign ls'."},
	{NotPermitted, 15, 403, ExitDenied, Never, "The account may not do this", "Ask the owner of the place, or the provider's operator, for the right that is named."},
	{Hidden, 16, 404, ExitDenied, Never, "It does not exist or may not be seen by this account", "Check the name and the account."},
	{Conflict, 17, 409, ExitFailed, Never, "The same identifier was used for something else", "Use a new order."},
	{UnknownProvider, 18, 404, ExitNotFound, Never, "The broker does not know this provider", "See 'consign provider list' for the providers of this broker."},
	{NoContainer, 19, 404, ExitNotFound, Never, "No agent exports this container", "Check the name, or ask the provider's operator to export it."},
	{AgentAbsent, 20, 503, ExitTemporary, Later, "No agent of the provider is connected", "Nothing is lost: it goes on when an agent is back."},
	{NoListener, 21, 409, ExitFailed, Never, "Neither agent can be dialled by the other", "Give one of the agents an address that the other can reach."},
	{LeaseLost, 22, 409, ExitTemporary, Later, "The task was given to somebody else", "Nothing to do: it goes on elsewhere."},

	{CertMissing, 23, 401, ExitDenied, Never, "No client certificate was sent", "Name the certificate and key of an account in the configuration."},
	{CertExpired, 24, 401, ExitDenied, Never, "The certificate has expired", "Renew the certificate at the provider that issued it."},
	{CertNotYet, 25, 401, ExitDenied, Never, "The certificate is not valid yet", "Check the clock of this machine."},
	{CertUnknown, 26, 401, ExitDenied, Never, "The certificate was not issued by an authority that is trusted for its domain", "Use a certificate of the provider's own authority."},
	{CertMisused, 27, 403, ExitDenied, Never, "The certificate is not of the kind that is needed here", "Use a certificate made for this role."},
	{CertMismatch, 28, 403, ExitDenied, Never, "The certificate names somebody else", "Check the identity that is expected."},

	{BadSignature, 29, 403, ExitDenied, Never, "The signature does not verify", "Sign again with the key that belongs to the certificate."},
	{WrongStatement, 30, 403, ExitDenied, Never, "It is a statement of another kind", "Present the statement that this place asks for."},
	{UnknownKey, 31, 403, ExitDenied, Later, "The signing key is not known", "Wait for the next refresh of keys, or check the issuer."},
	{NotCanonical, 32, 400, ExitDenied, Never, "The statement is not in its canonical form", "Encode it as docs/spec says."},

	{OrderExpired, 33, 403, ExitFailed, Never, "The order is past its end", "Order it again."},
	{OrderNotCovered, 34, 403, ExitDenied, Never, "The order does not cover this item", "Order what is wanted."},
	{OrderUnsigned, 35, 403, ExitDenied, Never, "The order is not signed by the account that it names", "Sign with the keys of the accounts at both providers."},
	{OrderSpent, 36, 409, ExitFailed, Never, "The order was already used for another run", "Order it again."},

	{CapExpired, 37, 403, ExitTemporary, Later, "The capability has ended", "It is renewed by its holder; if the broker is down, the transfer goes on when it is back."},
	{CapNotYet, 38, 403, ExitTemporary, Later, "The capability is not valid yet", "Check the clocks."},
	{CapNotYours, 39, 403, ExitDenied, Never, "The capability is bound to another key", "Only its holder may present it."},
	{CapAudience, 40, 403, ExitDenied, Never, "The capability is for somebody else to accept", "Present it to the agent that it names."},
	{CapManifest, 41, 403, ExitDenied, Never, "The capability is for another manifest", "Present it with its own manifest."},
	{CapSpent, 42, 409, ExitExists, Never, "The capability was already used to its end", "Order it again if it is still wanted."},
	{CapStale, 43, 403, ExitTemporary, Later, "A newer generation of the capability is in use", "Present the newest generation."},
	{CapOverBudget, 44, 403, ExitFailed, Later, "More bytes were asked for than the capability allows", "It is tried again with a new capability; if it persists, look for a path between the agents that breaks often."},
	{CapTooLong, 45, 403, ExitDenied, Never, "The capability lives longer than is allowed", "Ask the broker's operator to mint shorter ones."},
	{ForeignPeer, 46, 403, ExitDenied, Never, "The peer is not an agent of the provider that the order names", "Check the agents of both providers."},
	{UnknownBroker, 47, 403, ExitDenied, Never, "The broker is not one that this agent listens to", "Add the broker to the agent's configuration."},
	{PolicyRefused, 48, 403, ExitDenied, Never, "The agent's local policy does not allow it", "Ask the provider's operator."},

	{Taken, 49, 409, ExitExists, Never, "The name already exists at the destination", "Choose another name; a transfer never replaces an object."},
	{Claimed, 50, 409, ExitTemporary, Later, "The name is being written by another transfer", "It is tried again when the other transfer has ended."},
	{Changed, 51, 409, ExitTemporary, Later, "The source object changed while it was read", "It is planned again; stop writing to it for a moment."},
	{Corrupt, 52, 422, ExitIntegrity, Later, "The bytes that arrived are not those that were sent", "It is fetched again; if it persists, check memory and disks."},
	{DigestDiffers, 53, 422, ExitIntegrity, Never, "The digest is not the one that was asked for", "Check which version of the object is meant."},
	{Disputed, 54, 422, ExitIntegrity, Never, "The two agents signed statements that contradict each other", "Compare both receipts; one of the agents is wrong."},
	{DiskFull, 55, 507, ExitTemporary, Later, "The destination has no space left", "Free space at the destination; it is tried again."},
	{Unreadable, 56, 403, ExitFailed, Never, "The source object cannot be read by its agent", "Give the agent the right to read it."},
	{Unwritable, 57, 403, ExitFailed, Never, "The destination cannot be written by its agent", "Give the agent the right to write there."},
	{Skipped, 58, 200, ExitFailed, Never, "It is not an object and was left out", "Nothing to do: links and special files are not transferred."},
	{Untried, 59, 409, ExitTemporary, Later, "It was not tried", "It is tried again, or order it again."},
	{NotExclusive, 60, 409, ExitFailed, Never, "The store does not create exclusively", "Use a store or file system that supports it."},
	{PeerUnreached, 61, 504, ExitTemporary, Later, "The other agent cannot be reached", "Check its address and the path for UDP between the agents."},
	{PeerMisbehaved, 62, 502, ExitFailed, Later, "The other agent broke the protocol", "Compare the versions of both agents."},
	{Draining, 63, 503, ExitTemporary, Later, "The agent is stopping", "Nothing to do: it goes on when the agent is back."},
	{Partial, 64, 200, ExitPartial, Never, "Some items were not transferred", "See 'consign transfer show' for each item and its reason."},
	{JoinSpent, 65, 403, ExitDenied, Never, "The join token was already used", "If you did not use it, somebody else did: revoke and make a new one."},
	{JoinRefused, 66, 403, ExitDenied, Never, "The join token is unknown or past its end", "Make a new one with 'consign ca token'."},

	{OrderNotYet, 67, 403, ExitTemporary, Later, "The order is not valid yet", "Check the clocks."},
	{StoreAway, 68, 503, ExitTemporary, Later, "The agent's store does not answer, or answers too slowly", "Nothing is lost: it goes on when the store is back. Check the store's endpoint and its limits."},

	{CertRevoked, 69, 401, ExitDenied, Never, "The certificate was revoked by the authority that issued it", "Get a new certificate from the provider; if you do not know why, ask its operator."},
	{CRLStale, 70, 503, ExitTemporary, Later, "The revocation list of the provider is past its end, so that none of its certificates is accepted", "Publish a newer revocation list; it is read again without a restart."},
	{IDDenied, 71, 403, ExitDenied, Never, "The operator has denied this identity", "Ask the operator of the broker or agent that refused."},
	{OrderWithdrawn, 72, 403, ExitFailed, Never, "The order was withdrawn by one of its accounts", "Order it again if it is still wanted."},
	{OrderNotDue, 73, 403, ExitTemporary, Later, "The run of the standing order is not due", "Nothing to do: it runs when it is due. If it persists, check the clocks."},
	{CapRevoked, 74, 403, ExitFailed, Never, "The broker has revoked the capability", "See 'consign transfer show' for who ended or paused the transfer."},
	{ClockSkewed, 75, 403, ExitTemporary, Later, "Two clocks differ too much to judge any time", "Set the clock that is wrong, for example with NTP."},
	{NotLinked, 76, 403, ExitDenied, Never, "The account is not linked to the caller's", "Link it with 'consign account link', or order with the certificate of each account."},
	{SignerFailed, 77, 502, ExitFailed, Later, "The signer process did not sign", "Look at what the signer says on standard error, and try it by itself."},
	{EnrolFailed, 78, 502, ExitTemporary, Later, "The certificate authority did not issue a certificate", "Look at the authority's log; the certificate in use stays in use until its end."},
	{HookRefused, 79, 400, ExitUsage, Never, "The address of the webhook may not be called", "Use an https address on a public network, or ask the broker's operator to allow the network."},
	{LinkRefused, 80, 403, ExitDenied, Later, "The link between two accounts was not accepted", "Link them anew with 'consign account link'."},
	{PlacementRefused, 81, 403, ExitDenied, Never, "The object may not be kept where the store is", "Choose a store in a region that cdmi_geographic_placement permits, or change that item."},
	{UnderRetention, 82, 403, ExitDenied, Never, "The object is under retention", "Wait for the end of the retention; it can only move later."},
	{OnHold, 83, 403, ExitDenied, Never, "The object is under a hold", "Ask who placed the hold to release it."},
	{QuotaExceeded, 84, 507, ExitFailed, Never, "The container has no room for it within its assigned size", "Order less, or have cdmi_assignedsize of the container raised."},
	{Outdated, 85, 412, ExitFailed, Never, "It was changed since it was read", "Read it again and make the change on what it is now."},
	{NotOffered, 86, 400, ExitUsage, Never, "What was asked for is not offered here", "See the capabilities of the broker for what is."},
	{NotAcceptable, 87, 406, ExitUsage, Never, "There is no answer of a type that the request accepts", "Accept the type that is named."},
	{Unsanitizable, 88, 409, ExitDenied, Never, "The store cannot wipe what it erases in the way that is asked for", "Ask for one of the methods that 'stat' shows for the container, or take cdmi_sanitization_method away."},
	{NotEmpty, 89, 409, ExitFailed, Never, "The container is not empty", "Erase what is in it first, or leave it; nothing is erased that is not named."},
}
