-- +goose Up
-- Adoptions: what stands in a store is entered in the namespace. The id is that of the order.
CREATE TABLE adoptions (
    id         TEXT PRIMARY KEY REFERENCES orders (id),
    state      TEXT NOT NULL,
    account    TEXT NOT NULL,   -- who asked for it
    provider   TEXT NOT NULL,
    container  TEXT NOT NULL,
    name       TEXT NOT NULL,
    scope      TEXT NOT NULL,   -- one, tree
    owner      TEXT NOT NULL,   -- of the rows that are made
    metadata   TEXT NOT NULL,   -- of the rows that are made: JSON, empty for none
    authority  TEXT NOT NULL,
    created    BIGINT NOT NULL,
    finished   BIGINT NOT NULL,
    expires    BIGINT NOT NULL,
    not_before BIGINT NOT NULL, -- not to be listed before
    tries      BIGINT NOT NULL, -- that failed since the last page
    judged     BIGINT NOT NULL, -- the number of the access control lists under which the account was last found to have the right
    task       TEXT NOT NULL,   -- id of the task that is, or was last, carried out
    agent      TEXT NOT NULL,   -- by whom
    page       TEXT NOT NULL,   -- hash of the page that came last
    page_done  BIGINT NOT NULL, -- entries of it that were taken
    resume     TEXT NOT NULL,   -- the last name taken
    inside     TEXT NOT NULL,   -- the container that was entered last
    objects    BIGINT NOT NULL,
    containers BIGINT NOT NULL,
    bytes      BIGINT NOT NULL,
    made       BIGINT NOT NULL,
    changed    BIGINT NOT NULL,
    skipped    BIGINT NOT NULL,
    refused    BIGINT NOT NULL,
    code       TEXT NOT NULL,
    detail     TEXT NOT NULL,
    seq        BIGINT NOT NULL  -- grows with every change
);
CREATE INDEX adoptions_live ON adoptions (finished, id);
CREATE INDEX adoptions_account ON adoptions (account, id);
