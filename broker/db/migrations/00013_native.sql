-- +goose Up
-- Searches go on from page to page in the order of names: by digest, and by user metadata among those rows that have some.
DROP INDEX nodes_digest;
CREATE INDEX nodes_digest ON nodes (provider, digest, container, name, kind) WHERE digest <> '';
CREATE INDEX nodes_user ON nodes (provider, container, name, kind) WHERE user_md <> '';
