-- +goose Up
-- What an agent says of a container beside what may be read and created there.
ALTER TABLE containers ADD COLUMN can_erase BIGINT NOT NULL DEFAULT 0;
ALTER TABLE containers ADD COLUMN sanitizes TEXT NOT NULL DEFAULT ''; -- methods, with a line feed between them
ALTER TABLE containers ADD COLUMN place TEXT NOT NULL DEFAULT '';     -- by a code of ISO 3166; empty is unknown
ALTER TABLE containers ADD COLUMN owner TEXT NOT NULL DEFAULT '';     -- whose it is while its row has no owner
-- Up to which number of its provider's log the agent has said that it keeps holds and retentions.
ALTER TABLE agents ADD COLUMN kept BIGINT NOT NULL DEFAULT 0;

-- The log of what binds erasures, by provider: of each place the newest record alone. Numbers are milliseconds where they can be, so that those
-- behind a backup are beyond all before it.
CREATE TABLE kept (
    provider  TEXT NOT NULL,
    container TEXT NOT NULL,
    name      TEXT NOT NULL,
    kind      BIGINT NOT NULL, -- 0 object, 1 container
    seq       BIGINT NOT NULL,
    data      TEXT NOT NULL,   -- JSON of the place's own items; empty: none any more
    look      BIGINT NOT NULL, -- when to look next for what is to be erased by itself; 0 is never
    done      TEXT NOT NULL,   -- of a container: the name up to which this look has come
    note      TEXT NOT NULL,   -- why something due was not erased at the last look
    PRIMARY KEY (provider, container, name, kind)
);
CREATE UNIQUE INDEX kept_seq ON kept (provider, seq);
CREATE INDEX kept_look ON kept (look) WHERE look > 0;
-- Agents that have come no further than this get the log anew: records before it that say nothing any more were dropped.
CREATE TABLE kept_floors (
    provider TEXT PRIMARY KEY,
    seq      BIGINT NOT NULL,
    least    BIGINT NOT NULL -- that an agent has said it has reached: the next number is beyond it
);

-- What was erased, by the id of its order. The leaf says the same.
CREATE TABLE erasures (
    id        TEXT PRIMARY KEY,
    provider  TEXT NOT NULL,
    container TEXT NOT NULL,
    name      TEXT NOT NULL,
    kind      BIGINT NOT NULL, -- 0 object, 1 container
    version   TEXT NOT NULL,
    size      BIGINT NOT NULL,
    method    TEXT NOT NULL,   -- by which it was wiped; empty: it was not
    agent     TEXT NOT NULL,
    came      BIGINT NOT NULL,
    leaf      BIGINT NOT NULL REFERENCES leaves (idx)
);
CREATE INDEX erasures_place ON erasures (provider, container, name);
