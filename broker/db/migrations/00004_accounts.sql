-- +goose Up
-- Links between accounts: a is less than b.
CREATE TABLE links (
    a         TEXT NOT NULL,
    b         TEXT NOT NULL,
    made      BIGINT NOT NULL,
    statement BLOB NOT NULL, -- JSON of the link as it came: JWS and chains
    PRIMARY KEY (a, b)
);
CREATE INDEX links_b ON links (b);

-- The keys with which an identity was seen, at most a few.
CREATE TABLE identity_keys (
    id    TEXT NOT NULL,
    spki  TEXT NOT NULL, -- SHA-256 of the SubjectPublicKeyInfo
    first BIGINT NOT NULL,
    last  BIGINT NOT NULL,
    PRIMARY KEY (id, spki)
);
INSERT INTO counters (name, value) VALUES ('key_change', 1);
CREATE TABLE key_changes (
    n        BIGINT PRIMARY KEY,
    id       TEXT NOT NULL,
    was      TEXT NOT NULL,
    became   TEXT NOT NULL,
    came     BIGINT NOT NULL,
    verdict  TEXT NOT NULL,   -- of whom it concerns: mine, not-mine; empty while nobody has said
    judged   BIGINT NOT NULL, -- when
    judge    TEXT NOT NULL    -- by whom
);
CREATE INDEX key_changes_open ON key_changes (id, became) WHERE verdict <> 'mine';
-- Who is told of a change: the account, and those that were linked with it then.
CREATE TABLE key_notices (
    account TEXT NOT NULL,
    n       BIGINT NOT NULL REFERENCES key_changes (n),
    PRIMARY KEY (account, n)
);
