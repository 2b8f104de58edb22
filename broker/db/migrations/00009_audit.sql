-- +goose Up
-- What AUDIT entries and the standard want recorded of attempts at access. Numbers have no hole.
CREATE TABLE audit (
    n         BIGINT PRIMARY KEY,
    came      BIGINT NOT NULL,
    who       TEXT NOT NULL,   -- empty: did not authenticate
    op        TEXT NOT NULL,
    provider  TEXT NOT NULL,
    container TEXT NOT NULL,
    name      TEXT NOT NULL,
    kind      BIGINT NOT NULL, -- 0 object, 1 container
    want      BIGINT NOT NULL,
    audited   BIGINT NOT NULL, -- what of it AUDIT entries name
    outcome   BIGINT NOT NULL, -- as package acl numbers them
    missing   BIGINT NOT NULL,
    cause     TEXT NOT NULL,
    items     BIGINT NOT NULL, -- names that the record stands for
    first_name TEXT NOT NULL,  -- of a page of names; else empty
    last_name TEXT NOT NULL,
    salt      TEXT NOT NULL
);
CREATE INDEX audit_place ON audit (provider, container, n);
CREATE INDEX audit_provider ON audit (provider, n);
CREATE INDEX audit_let_in ON audit (provider, container, who, came) WHERE outcome >= 3; -- let in by what they are
INSERT INTO counters (name, value) VALUES ('audit', 1);

-- Records in runs without a hole, each with a leaf that has its root.
CREATE TABLE audit_runs (
    first   BIGINT PRIMARY KEY,
    records BIGINT NOT NULL,
    root    TEXT NOT NULL,
    since   BIGINT NOT NULL, -- of its first record
    until   BIGINT NOT NULL, -- of its last
    leaf    BIGINT NOT NULL REFERENCES leaves (idx),
    pruned  BIGINT NOT NULL  -- when its records were moved to a file; 0: they are here
);
CREATE INDEX audit_runs_kept ON audit_runs (first) WHERE pruned = 0;

-- +goose StatementBegin
CREATE TRIGGER audit_update BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'audit records are never changed');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER audit_delete BEFORE DELETE ON audit
WHEN NOT EXISTS (SELECT 1 FROM audit_runs WHERE pruned > 0 AND first <= OLD.n AND OLD.n < first + records) BEGIN
    SELECT RAISE(ABORT, 'audit records go only with their run');
END;
-- +goose StatementEnd
