// Package s3 is the bucket.Backend of stores that speak the protocol of Amazon
// S3: AWS itself, and everything compatible with it.
//
// # What is promised
//
// An object is created by one request that carries If-None-Match: *, a PutObject or
// a CompleteMultipartUpload, so that of many which create one key one succeeds, where the
// service keeps that promise. Whether it does is measured by Probe of the Store, because there are
// services that take the header and do not look at it.
//
// A read carries If-Match with the ETag of its pin, and the version id if that is known, and the ETag
// of the answer is compared once more. The version of an object is its ETag, or "ETag#ID" where the service
// gave a version id, which it does if the bucket has versioning; a listing knows the ETag alone. An
// ETag of a small object is most often the MD5 of its content, so an object that was replaced by
// one with the same content is the same version, with other attributes perhaps.
//
// One call is one request, but for these: Delete of a version looks first, because services are old
// that ignore If-Match there, which is sent as well. Get of an empty object, or from its end on, looks at the
// object after the service said 416, because that answer does not describe it. List and Uploads make a request for each 1,000 names, and Parts for
// each 1,000 parts.
//
// A part is streamed through buffers of 64 KiB. That a call stalls is for the Store to notice; for the head of an answer
// a call waits two minutes, and Complete a quarter of an hour, in which a service may put gigabytes together.
//
// # What guards the bytes
//
// The content of a Put is signed by its SHA-256 and has its CRC-32C in a header. A part is streamed, so
// its digest is not known before. Over TLS its CRC-32C follows in a trailer (x-amz-trailer), and the upload is declared with that
// checksum, because AWS asks for both or none; Complete names the checksums of all parts again. Over plain HTTP every 64 KiB of a part are signed
// with SHA-256 instead, without a trailer, because of what was seen (below). CheckParts
// measures whether the service looks. Checksums is the way out for a service that refuses trailers.
//
// # What AWS documents
//
//   - 412 PreconditionFailed: the key exists; on a read, it has another ETag.
//   - 409 ConditionalRequestConflict: a conflicting request on the key was under way. A PutObject may be made again; after a Complete all parts
//     must be uploaded anew.
//   - 404 NoSuchUpload: the upload was completed or aborted, or never was.
//   - CompleteMultipartUpload may say 200 before it has finished, and then an error in the body. That error counts; a body that
//     ends early is no answer.
//   - DeleteObject takes If-Match. In a bucket with versioning it leaves older versions in place, under a delete marker.
//   - User metadata are at most 2 KiB, and their keys are in lower case.
//
// # What was seen
//
// With minio-go v7.4.1, versitygw v1.8.0 (posix) and rclone v1.76.0 (serve s3):
//
//   - Both create exclusively, and refuse a wrong If-Match on reading and on deleting with 412. Both list in the order of bytes.
//   - A trailer with a checksum over TLS: versitygw compares it and refuses a wrong one with 400 BadDigest; rclone takes it and does not compare.
//   - A trailer in a signed stream over plain HTTP, as minio-go writes it: versitygw always says 400 BadDigest,
//     and rclone stores wrong bytes without an error. So it is never sent.
//   - A signed stream without a trailer over plain HTTP: versitygw refuses a flipped bit with 403 SignatureDoesNotMatch; rclone
//     does not look. It does not look at x-amz-content-sha256 of a Put either, but it compares its x-amz-checksum-crc32c.
//   - A name below an object, or of a folder: versitygw says 409 ObjectParentIsFile or ExistingObjectIsDirectory, rclone 400
//     InvalidRequest with a sentence. Both mean that the name is taken.
//   - rclone answers HEAD of "a/" for every folder a, also where it lists no such key, and 400 to HEAD of "a//".
//   - rclone looks at If-Match once: of an object that is replaced while it is read a mixture may come.
//   - A name too long for the file system behind it: versitygw says 400 KeyTooLongError, rclone 500 InternalError, and it lists the name.
//   - An unknown access key: versitygw says 404 XAdminUserNotFound, and to a HEAD plain 404, which cannot be told from a missing key.
//   - An upload to a name below an object: versitygw begins it and refuses Complete; rclone refuses to begin.
//   - A repeated Complete succeeds with both.
//   - versitygw decodes a value of metadata that is an encoded word (RFC 2047), and lists U+FFFF as another character, because XML cannot hold it.
//     Such values are not written, and such keys are refused.
//   - rclone passes parts on in their order, and says 501 NotImplemented to a part that comes again with other bytes: the upload must begin anew.
//   - rclone lists uploads only if asked for their exact key, and keeps metadata in memory only.
//
// What is refused before a byte is sent: credentials in the configuration. They come from a
// file or from the usual chain, see Config.
package s3
