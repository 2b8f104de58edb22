-- +goose Up
-- Why an event happened, if it is a refusal; and whose it is, if it is of no transfer.
ALTER TABLE events ADD COLUMN code TEXT NOT NULL DEFAULT '';
ALTER TABLE events ADD COLUMN account TEXT NOT NULL DEFAULT '';
CREATE INDEX events_denied ON events (xfr, seq) WHERE kind = 'denied';

CREATE TABLE hooks (
    id        TEXT PRIMARY KEY,
    account   TEXT NOT NULL,
    url       TEXT NOT NULL,
    kinds     TEXT NOT NULL,   -- JSON array of the kinds of events that are wanted; empty is the usual ones
    created   BIGINT NOT NULL,
    due       BIGINT NOT NULL, -- not to be called before
    tries     BIGINT NOT NULL, -- that failed since the last success
    failing   BIGINT NOT NULL, -- since when
    stopped   BIGINT NOT NULL, -- when it was switched off
    delivered BIGINT NOT NULL, -- when an event was last taken
    pending   BIGINT NOT NULL, -- rows in outbox
    code      TEXT NOT NULL,   -- of the last failure
    detail    TEXT NOT NULL
);
CREATE INDEX hooks_account ON hooks (account, id);
CREATE INDEX hooks_due ON hooks (due) WHERE pending > 0 AND stopped = 0;
-- Rows exist only until the event is taken.
CREATE TABLE outbox (
    hook TEXT NOT NULL REFERENCES hooks (id),
    seq  BIGINT NOT NULL REFERENCES events (seq),
    PRIMARY KEY (hook, seq)
);
