// Package realstores runs the real servers that Consign is tested against,
// demonstrated on and measured with: object stores, and one certificate
// authority. Each is a child process on loopback, with a free port and a folder
// of its own. It is for tests, demos and campaigns, and it knows no driver and no
// cloud SDK, so that what it says of a store is a second opinion.
//
// `make servers` installs the programs; Recipes is the one list of them, with
// their versions. A program that is not there is an error, never a reason to
// leave out a test.
//
//	Versitygw    S3, the first implementation: conditional, exclusive, says part digests
//	RcloneS3     S3, the second: lists no uploads, forgets metadata when it ends
//	GoFakeS3     S3 that lies: Complete ignores If-None-Match
//	Azurite      Azure Blob
//	FakeGCS      GCS that lies: compose ignores every precondition
//	GCSEmulator  GCS: FakeGCS behind a proxy in this process that makes it honest
//	StepCA       an authority with ACME and one-time tokens
//
// Faults is a proxy that goes in front of any of them and answers with an
// error, loses an answer or loses a request where a test says so.
//
// # What GCSEmulator mends
//
// fake-gcs-server 1.56.1 honours ifGenerationMatch on an insert, and not much
// else that one who writes once needs. The proxy does, as the JSON API
// documents it:
//
//   - ifGenerationMatch and ifGenerationNotMatch hold on compose, rewrite, copy,
//     patch, update, delete and reading, else 412 (304 for a read that is not
//     changed);
//   - compose takes sourceObjects with generation and with
//     objectPreconditions.ifGenerationMatch, 412 if it is another, 404 if there
//     is none; without sources it is 400;
//   - whatever looks and then writes does both under one lock a server, and an insert
//     waits for it, so that of many that create one name one wins;
//   - a composed object has a componentCount and no md5Hash, whoever asks;
//   - a page of a listing has at most 1,000 objects, also when nobody asked for pages.
//
// It does not mend metageneration, holds, retention, limits of rate, the XML API,
// batches, and asking how far a resumable upload got (which 1.56.1 takes for its end).
package realstores
