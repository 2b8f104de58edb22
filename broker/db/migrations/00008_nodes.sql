-- +goose Up
-- What is known of objects and containers: of those that were consigned, adopted, made or given metadata, and of the containers above
-- them. An object and a container may have one name. A root container has the empty name.
CREATE TABLE nodes (
    provider  TEXT NOT NULL,
    container TEXT NOT NULL,
    name      TEXT NOT NULL,
    kind      BIGINT NOT NULL, -- 0 object, 1 container
    id        TEXT NOT NULL UNIQUE,
    owner     TEXT NOT NULL,   -- empty: that of the container above
    acl       TEXT NOT NULL,   -- its own list, canonical; empty: none
    user_md   TEXT NOT NULL,   -- JSON; empty: none
    data_md   TEXT NOT NULL,   -- JSON; empty: none
    size      BIGINT NOT NULL, -- of a container that of all objects with rows below it; -1: only the store knows
    objects   BIGINT NOT NULL, -- of a container: that are in size
    digest    TEXT NOT NULL,
    hash_kind TEXT NOT NULL,
    hash      TEXT NOT NULL,
    version   TEXT NOT NULL,
    native    TEXT NOT NULL,
    created   BIGINT NOT NULL, -- times in microseconds
    accessed  BIGINT NOT NULL,
    modified  BIGINT NOT NULL,
    accesses  BIGINT NOT NULL,
    changes   BIGINT NOT NULL,
    rev       BIGINT NOT NULL, -- grows with every change that is shown but for accesses and what a container holds
    xfr       TEXT NOT NULL,   -- what stored it
    bat       BIGINT NOT NULL,
    item      BIGINT NOT NULL,
    adopted   BIGINT NOT NULL, -- when it was found in the store; 0: it was not
    PRIMARY KEY (provider, container, name, kind)
);
CREATE INDEX nodes_digest ON nodes (digest) WHERE digest <> '';
-- Earlier states of objects, a few of each.
CREATE TABLE node_versions (
    id        TEXT NOT NULL REFERENCES nodes (id),
    rev       BIGINT NOT NULL,
    size      BIGINT NOT NULL,
    digest    TEXT NOT NULL,
    hash_kind TEXT NOT NULL,
    hash      TEXT NOT NULL,
    version   TEXT NOT NULL,
    native    TEXT NOT NULL,
    modified  BIGINT NOT NULL,
    xfr       TEXT NOT NULL,
    bat       BIGINT NOT NULL,
    item      BIGINT NOT NULL,
    PRIMARY KEY (id, rev)
);
-- A number that grows with every change of what decides about access or orders at a provider.
CREATE TABLE acl_gens (
    provider TEXT PRIMARY KEY,
    gen      BIGINT NOT NULL
);
CREATE TABLE group_members (
    provider TEXT NOT NULL,
    name     TEXT NOT NULL, -- of the group
    member   TEXT NOT NULL, -- an identity
    added    BIGINT NOT NULL,
    PRIMARY KEY (provider, name, member)
);
CREATE INDEX group_members_of ON group_members (provider, member, name);
