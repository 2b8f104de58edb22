-- +goose Up
-- Times are milliseconds since 1970 UTC; 0 is none. Flags are 0 or 1.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value BIGINT NOT NULL -- the next number that is free
);
INSERT INTO counters (name, value) VALUES ('leaf', 0);
INSERT INTO counters (name, value) VALUES ('event', 1);

CREATE TABLE providers (
    name  TEXT PRIMARY KEY,
    added BIGINT NOT NULL
);
CREATE TABLE subscribers (
    id       TEXT PRIMARY KEY,
    provider TEXT NOT NULL,
    seen     BIGINT NOT NULL
);
CREATE TABLE agents (
    id       TEXT PRIMARY KEY,
    provider TEXT NOT NULL,
    version  TEXT NOT NULL,
    slots    BIGINT NOT NULL,
    listen   TEXT NOT NULL, -- JSON array
    seen     BIGINT NOT NULL
);
CREATE TABLE containers (
    provider   TEXT NOT NULL,
    name       TEXT NOT NULL,
    agent      TEXT NOT NULL REFERENCES agents (id),
    can_read   BIGINT NOT NULL,
    can_create BIGINT NOT NULL,
    part_size  BIGINT NOT NULL,
    max_parts  BIGINT NOT NULL,
    PRIMARY KEY (provider, name, agent)
);

CREATE TABLE orders (
    id       TEXT PRIMARY KEY,
    hash     TEXT NOT NULL,
    signed   BLOB NOT NULL, -- JSON of the order as it came: JWS and chains
    received BIGINT NOT NULL
);
CREATE TABLE transfers (
    id            TEXT PRIMARY KEY REFERENCES orders (id),
    state         TEXT NOT NULL,
    ending        TEXT NOT NULL, -- the state it will end in, from when nothing new is begun; empty before
    verb          TEXT NOT NULL,
    src_provider  TEXT NOT NULL,
    src_container TEXT NOT NULL,
    src_name      TEXT NOT NULL,
    dst_provider  TEXT NOT NULL,
    dst_container TEXT NOT NULL,
    dst_name      TEXT NOT NULL,
    accounts      TEXT NOT NULL, -- JSON array
    created       BIGINT NOT NULL,
    finished      BIGINT NOT NULL,
    expires       BIGINT NOT NULL,
    planned       BIGINT NOT NULL,
    plan_after    BIGINT NOT NULL, -- not to be listed before
    plan_tries    BIGINT NOT NULL,
    resume_after  TEXT NOT NULL,   -- the last name taken from the listing
    items         BIGINT NOT NULL,
    bytes         BIGINT NOT NULL,
    moved         BIGINT NOT NULL,
    stored        BIGINT NOT NULL,
    existed       BIGINT NOT NULL,
    taken         BIGINT NOT NULL,
    altered       BIGINT NOT NULL,
    denied        BIGINT NOT NULL,
    failed        BIGINT NOT NULL,
    skipped       BIGINT NOT NULL,
    untried       BIGINT NOT NULL,
    disputed      BIGINT NOT NULL,
    unmatched     BIGINT NOT NULL,
    code          TEXT NOT NULL,
    detail        TEXT NOT NULL,
    next_bat      BIGINT NOT NULL,
    seq           BIGINT NOT NULL
);
CREATE INDEX transfers_live ON transfers (finished, id);
CREATE TABLE accounts (
    account TEXT NOT NULL,
    xfr     TEXT NOT NULL REFERENCES transfers (id),
    PRIMARY KEY (account, xfr)
);

CREATE TABLE batches (
    xfr         TEXT NOT NULL REFERENCES transfers (id),
    bat         BIGINT NOT NULL,
    state       TEXT NOT NULL, -- filling, ready, repin, live, ended
    man         TEXT NOT NULL,
    items       BIGINT NOT NULL,
    bytes       BIGINT NOT NULL,
    created     BIGINT NOT NULL,
    not_before  BIGINT NOT NULL,
    claimed     BIGINT NOT NULL, -- waits for a name that another batch has reserved
    tries       BIGINT NOT NULL, -- of its items, for reasons of their own
    attempts    BIGINT NOT NULL, -- of its items, for any reason
    repins      BIGINT NOT NULL,
    src         TEXT NOT NULL,
    dst         TEXT NOT NULL,
    gen         BIGINT NOT NULL,
    cnf         TEXT NOT NULL,
    cap_exp     BIGINT NOT NULL,
    cap_read    TEXT NOT NULL,
    cap_create  TEXT NOT NULL,
    src_done    BIGINT NOT NULL, -- the last receipt of that side came
    dst_done    BIGINT NOT NULL,
    dropped     BIGINT NOT NULL, -- its agents were told to stop
    note        TEXT NOT NULL,
    PRIMARY KEY (xfr, bat)
);
CREATE INDEX batches_state ON batches (state, not_before);
CREATE INDEX batches_src ON batches (src, state);
CREATE INDEX batches_dst ON batches (dst, state);
CREATE TABLE manifests (
    xfr  TEXT NOT NULL,
    bat  BIGINT NOT NULL,
    body BLOB NOT NULL, -- canonical bytes
    PRIMARY KEY (xfr, bat),
    FOREIGN KEY (xfr, bat) REFERENCES batches (xfr, bat)
);
CREATE TABLE finals (
    xfr  TEXT NOT NULL,
    bat  BIGINT NOT NULL,
    body BLOB NOT NULL, -- JSON lines: the final outcomes of its items; those not there went on in another batch
    PRIMARY KEY (xfr, bat),
    FOREIGN KEY (xfr, bat) REFERENCES batches (xfr, bat)
);
CREATE TABLE capabilities (
    hash TEXT PRIMARY KEY, -- of the payload
    xfr  TEXT NOT NULL,
    bat  BIGINT NOT NULL,
    gen  BIGINT NOT NULL,
    verb TEXT NOT NULL,
    FOREIGN KEY (xfr, bat) REFERENCES batches (xfr, bat)
);
CREATE INDEX capabilities_batch ON capabilities (xfr, bat);
-- Rows exist only while their batch is live.
CREATE TABLE reservations (
    provider  TEXT NOT NULL,
    container TEXT NOT NULL,
    name      TEXT NOT NULL,
    xfr       TEXT NOT NULL,
    bat       BIGINT NOT NULL,
    PRIMARY KEY (provider, container, name),
    FOREIGN KEY (xfr, bat) REFERENCES batches (xfr, bat)
);
CREATE INDEX reservations_batch ON reservations (xfr, bat);
-- Rows exist only while the task is wanted.
CREATE TABLE tasks (
    id        TEXT PRIMARY KEY,
    xfr       TEXT NOT NULL REFERENCES transfers (id),
    bat       BIGINT NOT NULL, -- repin; else 0
    kind      TEXT NOT NULL,   -- plan, repin, make
    agent     TEXT NOT NULL,
    created   BIGINT NOT NULL,
    last_page TEXT NOT NULL,   -- hash of the page taken last
    UNIQUE (xfr, bat, kind)
);
CREATE INDEX tasks_agent ON tasks (agent);
CREATE TABLE receipts (
    xfr   TEXT NOT NULL,
    bat   BIGINT NOT NULL,
    side  TEXT NOT NULL,
    part  BIGINT NOT NULL,
    final BIGINT NOT NULL, -- the last of its side
    root  TEXT NOT NULL,
    jws   TEXT NOT NULL,
    chain TEXT NOT NULL,
    lines BLOB NOT NULL,
    leaf  BIGINT NOT NULL,
    came  BIGINT NOT NULL,
    PRIMARY KEY (xfr, bat, side, part),
    FOREIGN KEY (xfr, bat) REFERENCES batches (xfr, bat)
);
CREATE TABLE unplanned (
    xfr    TEXT NOT NULL REFERENCES transfers (id),
    n      BIGINT NOT NULL,
    name   TEXT NOT NULL,
    result TEXT NOT NULL,
    code   TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (xfr, n)
);
-- Empty containers of the source that are not made at the destination yet.
CREATE TABLE folders (
    xfr  TEXT NOT NULL REFERENCES transfers (id),
    name TEXT NOT NULL,
    PRIMARY KEY (xfr, name)
);

CREATE TABLE events (
    seq  BIGINT PRIMARY KEY,
    came BIGINT NOT NULL,
    xfr  TEXT NOT NULL,
    kind TEXT NOT NULL,
    note TEXT NOT NULL
);
CREATE INDEX events_xfr ON events (xfr, seq);
CREATE TABLE leaves (
    idx  BIGINT PRIMARY KEY,
    kind TEXT NOT NULL,
    came BIGINT NOT NULL,
    body BLOB NOT NULL
);
-- +goose StatementBegin
CREATE TRIGGER leaves_update BEFORE UPDATE ON leaves BEGIN
    SELECT RAISE(ABORT, 'leaves are append-only');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER leaves_delete BEFORE DELETE ON leaves BEGIN
    SELECT RAISE(ABORT, 'leaves are append-only');
END;
-- +goose StatementEnd
