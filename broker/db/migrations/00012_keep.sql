-- +goose Up
-- What an agent says of a container beside what may be done there.
ALTER TABLE containers ADD COLUMN place TEXT NOT NULL DEFAULT ''; -- by a code of ISO 3166; empty is unknown
ALTER TABLE containers ADD COLUMN owner TEXT NOT NULL DEFAULT ''; -- whose it is while its row has no owner
