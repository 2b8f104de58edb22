# A session of CDMI by curl alone. TestCDMISession sets:
#   URL    of the broker          PIN   of its public key
#   KEYS   folder of NAME/south/cert.pem and key.pem of alice (who owns the container dst), bob and carol
#   ID     what the identities of subscribers of south begin with
#   DST    folder of the container dst, in which is one object: one
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
step=start

fail() { printf 'in %s: %s\nstatus %s\n' "$step" "$1" "$status" >&2; cat "$tmp/head" "$tmp/body" >&2; exit 1; }

# call METHOD PATH [CURL ARGS...] asks as $who, and keeps status, head and body.
call() {
	method=$1 path=$2
	shift 2
	: >"$tmp/body"; : >"$tmp/head"
	status=$(curl -sS --max-time 60 --insecure --pinnedpubkey "$PIN" ${who:+--cert "$KEYS/$who/south/cert.pem" --key "$KEYS/$who/south/key.pem"} \
		-X "$method" -D "$tmp/head" -o "$tmp/body" -w '%{http_code}' --path-as-is "$@" "$URL$path")
}

# cdmi is call with the header of the version.
cdmi() { call "$@" -H 'X-CDMI-Specification-Version: 1.0.2, 1.1.1'; }

# put TYPE PATH BODY [CURL ARGS...] writes a container or an object.
put() {
	type=$1 path=$2 body=$3
	shift 3
	cdmi PUT "$path" -H "Content-Type: application/cdmi-$type" --data-binary "$body" "$@"
}

is() { [ "$status" = "$1" ] || fail "want the status $1"; }
has() { for want in "$@"; do grep -qF -- "$want" "$tmp/body" || fail "want $want in the body"; done; }
lacks() { for no in "$@"; do ! grep -qF -- "$no" "$tmp/body" || fail "$no is in the body"; done; }
header() { tr -d '\r' <"$tmp/head" | grep -qiE -- "^$1\$" || fail "want the header $1"; }
code() { has "\"code\":\"$1\""; header 'content-type: application/problem\+json'; }
field() { sed -n 's/.*"'"$1"'":"\([^"]*\)".*/\1/p' "$tmp/body"; }

who=alice

step='capabilities'
cdmi GET /cdmi/
is 200; header 'content-type: application/cdmi-container'; header 'x-cdmi-specification-version: 1.1.1'
has '"objectType":"application/cdmi-container"' '"parentURI":""' '"objectName":"/cdmi/"' '"north/"' '"south/"' '"capabilitiesURI":"/cdmi/cdmi_capabilities/container/fixed/"'
cdmi GET /cdmi/cdmi_capabilities/ -H 'Accept: application/cdmi-capability'
is 200; header 'content-type: application/cdmi-capability'; has '"cdmi_object_access_by_ID":"true"' '"cdmi_security_access_control":"true"' '"x509"'; lacks cdmi_queues cdmi_domains cdmi_read_value
cdmi GET '/cdmi/cdmi_capabilities/dataobject/?capabilities'
is 200; has '"cdmi_read_metadata":"true"'; lacks cdmi_read_value cdmi_modify_value cdmi_delete_dataobject
cdmi GET /cdmi/south/
is 200; has '"dst/"' '"objectName":"south/"' '"parentURI":"/cdmi/"'

step='create'
acl='[{"acetype":"ALLOW","identifier":"OWNER@","aceflags":"OBJECT_INHERIT, CONTAINER_INHERIT","acemask":"ALL_PERMS"},
{"acetype":"DENY","identifier":"'"$ID"'carol","aceflags":"0x03","acemask":"ALL_PERMS"},
{"acetype":"ALLOW","identifier":"'"$ID"'bob","aceflags":"NO_FLAGS","acemask":"CDMI_ACE_READ_METADATA | 0x00000080"},
{"acetype":"DENY","identifier":"'"$ID"'bob","aceflags":"NO_FLAGS","acemask":"LIST_CONTAINER, READ_ACL"}]'
put container /cdmi/south/dst/archive/ '{"metadata":{"project":"comet","tags":["a","b"],"cdmi_acl":'"$acl"'}}' -H 'Accept: application/cdmi-container'
is 201; header 'content-type: application/cdmi-container'; header 'x-cdmi-specification-version: 1.1.1'
has '"objectName":"archive/"' '"parentURI":"/cdmi/south/dst/"' '"completionStatus":"Complete"' '"project":"comet"' '"cdmi_owner":"'"$ID"'alice"' '"cdmi_mcount":"0"' \
	'"capabilitiesURI":"/cdmi/cdmi_capabilities/container/"' '"children":[]' '"acemask":"0x001F07FF"'
id=$(field objectID)
[ "${#id}" = 48 ] || fail "the object id $id has not 24 bytes"
[ -d "$DST/archive" ] || fail 'the container is not in its store'
put container /cdmi/south/dst/archive/ '{"metadata":{"project":"comet","tags":["a","b"]}}'
is 204

step='fields by name'
cdmi GET /cdmi/south/dst/archive/
is 200; has '"objectID":"'"$id"'"'
cdmi GET '/cdmi/south/dst/archive/?objectID;parentURI'
is 200; [ "$(cat "$tmp/body")" = '{"objectID":"'"$id"'","parentURI":"/cdmi/south/dst/"}' ] || fail 'want two fields and no others'
cdmi GET '/cdmi/south/dst/archive/?metadata:pro'
is 200; [ "$(cat "$tmp/body")" = '{"metadata":{"project":"comet"}}' ] || fail 'want one item and no other'
cdmi GET '/cdmi/south/dst/archive/?metadata:cdmi_acl'
is 200; has '"identifier":"'"$ID"'carol"' '"acetype":"0x01"' '"aceflags":"0x83"'; lacks project
cdmi GET '/cdmi/south/dst/archive/?metadata:cdmi_ctime;metadata:cdmi_atime;metadata:cdmi_mtime;metadata:cdmi_acount;metadata:cdmi_size'
is 200; has '"cdmi_ctime":"2' '"cdmi_atime":"2' '"cdmi_mtime":"2' '"cdmi_acount":"' '"cdmi_size":"0"'

step='fields by id'
cdmi GET "/cdmi/cdmi_objectid/$id/?objectName;metadata:project"
is 200; [ "$(cat "$tmp/body")" = '{"objectName":"archive/","metadata":{"project":"comet"}}' ] || fail 'want the same by id'
cdmi GET "/cdmi/cdmi_objectid/$id"
is 301; header "location: $URL/cdmi/cdmi_objectid/$id/"
cdmi GET /cdmi/south/dst/archive
is 301; header "location: $URL/cdmi/south/dst/archive/"

step='change'
put container '/cdmi/south/dst/archive/?metadata:project;metadata:tags' '{"metadata":{"project":"halley","ignored":"x"}}'
is 204
cdmi GET '/cdmi/south/dst/archive/?metadata'
is 200; has '"project":"halley"' '"cdmi_mcount":"1"'; lacks tags ignored
put container "/cdmi/cdmi_objectid/$id/?metadata:colour" '{"metadata":{"colour":"red","cdmi_size":"7"}}'
is 204
cdmi GET '/cdmi/south/dst/archive/?metadata:c'
is 200; has '"colour":"red"' '"cdmi_size":"0"'
etag=$(tr -d '\r' <"$tmp/head" | sed -n 's/^[Ee][Tt]ag: //p')
put container '/cdmi/south/dst/archive/?metadata:colour' '{"metadata":{"colour":"blue"}}' -H "If-Match: $etag"
is 204
put container '/cdmi/south/dst/archive/?metadata:colour' '{"metadata":{"colour":"green"}}' -H "If-Match: $etag"
is 412; code precondition-failed

step='another subscriber'
put container /cdmi/south/dst/archive/inside/ '{}'
is 201
who=bob
cdmi GET '/cdmi/south/dst/archive/?metadata:project'
is 200; has '"project":"halley"'
cdmi GET /cdmi/south/dst/archive/
is 200; has '"objectID":"'"$id"'"' '"project":"halley"'; lacks '"children"' cdmi_acl
cdmi GET '/cdmi/south/dst/archive/?children'
is 403; code insufficient-privileges; has "${ID}bob" LIST_CONTAINER
cdmi GET '/cdmi/south/dst/archive/?metadata:cdmi_acl'
is 403; code insufficient-privileges
put container '/cdmi/south/dst/archive/?metadata:project' '{"metadata":{"project":"mine"}}'
is 403; code insufficient-privileges; has "${ID}bob" WRITE_METADATA south:/dst/archive
put container '/cdmi/south/dst/archive/?metadata:cdmi_acl' '{"metadata":{"cdmi_acl":[]}}'
is 403; code insufficient-privileges; has WRITE_ACL
put container '/cdmi/south/dst/archive/?metadata:cdmi_owner' '{"metadata":{"cdmi_owner":"'"$ID"'bob"}}'
is 403; code insufficient-privileges
put container '/cdmi/south/dst/archive/?metadata:cdmi_hold_id' '{"metadata":{"cdmi_hold_id":["mine"]}}'
is 403; code insufficient-privileges; has WRITE_RETENTION_HOLD
cdmi DELETE /cdmi/south/dst/archive/
is 403; code insufficient-privileges; has DELETE
who=carol
cdmi GET /cdmi/south/dst/archive/inside/
is 404; code not-found-or-forbidden
cp "$tmp/body" "$tmp/inside"
cdmi GET /cdmi/south/dst/archive/ghosts/
is 404; code not-found-or-forbidden
[ "$(sed 's/ghosts/inside/g' "$tmp/body")" = "$(cat "$tmp/inside")" ] || fail 'what is not there and what may not be seen differ'
put container /cdmi/south/dst/archive/inside/ '{}'
is 404; code not-found-or-forbidden
put container /cdmi/south/dst/archive/new/ '{}'
is 404; code not-found-or-forbidden
put container /cdmi/south/dst/new/ '{}'
is 403; code insufficient-privileges; has "${ID}carol" ADD_SUBCONTAINER
cdmi GET "/cdmi/cdmi_objectid/$id/?metadata"
is 403; code insufficient-privileges
who=
cdmi GET /cdmi/south/dst/archive/
is 401; code certificate-missing; header 'www-authenticate: .+'

step='refusals'
who=alice
call GET /cdmi/south/dst/archive/
is 400; code not-offered
call GET /cdmi/south/dst/archive/ -H 'Accept: application/cdmi-container'
is 400; code malformed
call GET /cdmi/south/dst/archive/ -H 'X-CDMI-Specification-Version: 3.0'
is 400; code not-offered; has 1.1.1
cdmi GET /cdmi/south/dst/archive/ -H 'Accept: application/cdmi-object'
is 406; code not-acceptable
cdmi GET '/cdmi/south/dst/archive/?nothing'
is 400; code unknown-field
cdmi GET '/cdmi/south/dst/one?value'
is 400; code not-offered
put object /cdmi/south/dst/archive/new '{"value":"x"}'
is 400; code not-offered
put container /cdmi/south/dst/archive/cdmi_new/ '{}'
is 400; code bad-name
put container '/cdmi/south/dst/archive/?metadata:x' '{"metadata":{"x":"1","x":"2"}}'
is 400; code malformed
put container '/cdmi/south/dst/archive/?metadata:cdmi_acl' '{"metadata":{"cdmi_acl":[{"acetype":"ALARM","identifier":"OWNER@","aceflags":"0x0","acemask":"0x1"}]}}'
is 400; has ALARM
put container '/cdmi/south/dst/archive/?metadata:cdmi_data_holds' '{"metadata":{"cdmi_data_holds":["x"]}}'
is 400; code unknown-field; has cdmi_hold_id
put container /cdmi/south/dst/archive '{}'
is 400; code malformed
put container /cdmi/south/new/ '{}'
is 400; code not-offered
cdmi GET /cdmi/south/dst/archive/%2e%2e/
is 400; code bad-name

step='a data object'
cdmi GET /cdmi/south/dst/one -H 'Accept: application/cdmi-object'
is 200; header 'content-type: application/cdmi-object'; has '"objectType":"application/cdmi-object"' '"objectName":"one"' '"cdmi_size":"4"'; lacks '"value"'
put object '/cdmi/south/dst/one?metadata:colour' '{"metadata":{"colour":"red"}}'
is 204
cdmi GET '/cdmi/south/dst/one?objectID;metadata:colour'
is 200; has '"colour":"red"' '"objectID":"'
object=$(field objectID)
cdmi GET "/cdmi/cdmi_objectid/$object?objectName"
is 200; has '{"objectName":"one"}'
cdmi DELETE /cdmi/south/dst/one
is 400; code not-offered
cdmi GET /cdmi/south/dst/two
is 404; code missing

step='children'
for name in a b c d; do
	put container "/cdmi/south/dst/archive/$name/" '{}'
	is 201
done
call PUT /cdmi/south/dst/archive/by%20plain%20HTTP/
is 201
cdmi GET '/cdmi/south/dst/archive/?children'
is 200; has '{"children":["a/","b/","by plain HTTP/","c/","d/","inside/"]}'
cdmi GET '/cdmi/south/dst/archive/?children:1-2'
is 200; has '{"childrenrange":"1-2","children":["b/","by plain HTTP/"]}'
cdmi GET '/cdmi/south/dst/archive/?childrenrange'
is 200; has '{"childrenrange":"0-5"}'
cdmi GET "/cdmi/cdmi_objectid/$id/a/?objectName;parentID"
is 200; has '{"objectName":"a/","parentID":"'"$id"'"}'

step='holds and retention'
put container '/cdmi/south/dst/archive/a/?metadata:cdmi_retention_period' '{"metadata":{"cdmi_retention_period":"2020-01-01T00:00:00.000000Z/2090-01-01T00:00:00.000000Z"}}'
is 204
put container '/cdmi/south/dst/archive/a/?metadata:x' '{"metadata":{"x":"y"}}'
is 403; code under-retention; has 2090-01-01
cdmi DELETE /cdmi/south/dst/archive/a/
is 403; code under-retention
put container '/cdmi/south/dst/archive/b/?metadata:cdmi_hold_id' '{"metadata":{"cdmi_hold_id":["case 7"]}}'
is 204
cdmi DELETE /cdmi/south/dst/archive/b/
is 403; code on-hold
put container '/cdmi/south/dst/archive/b/?metadata:cdmi_hold_id' '{"metadata":{}}'
is 403; code on-hold
put container /cdmi/south/dst/archive/b/new/ '{}'
is 403; code on-hold

step='delete'
cdmi DELETE /cdmi/south/dst/archive/
is 409; code conflict
put container /cdmi/south/dst/archive/c/deep/ '{}'
is 201
cdmi DELETE /cdmi/south/dst/archive/c/
is 409; code conflict
cdmi DELETE /cdmi/south/dst/archive/c
is 301
cdmi DELETE /cdmi/south/dst/archive/c/deep/
is 204
cdmi DELETE /cdmi/south/dst/archive/c/
is 204
[ ! -e "$DST/archive/c" ] || fail 'the container is in its store still'
cdmi GET /cdmi/south/dst/archive/c/
is 404
cdmi DELETE /cdmi/south/dst/archive/c/
is 404
call DELETE /cdmi/south/dst/archive/d/
is 204
cdmi DELETE /cdmi/south/dst/
is 400; code not-offered

echo 'all as the standard has it'
