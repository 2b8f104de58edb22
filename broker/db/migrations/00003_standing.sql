-- +goose Up
-- Each later run of a standing order has a row of its own among the orders: the order as it was signed, with the chains of the run's time.
ALTER TABLE orders ADD COLUMN base TEXT NOT NULL DEFAULT '';       -- of a later run: the id of its standing order; else empty
ALTER TABLE orders ADD COLUMN run BIGINT NOT NULL DEFAULT 0;       -- its number
ALTER TABLE orders ADD COLUMN withdrawn BIGINT NOT NULL DEFAULT 0; -- of the order and of each of its runs
CREATE INDEX orders_base ON orders (base, run);

CREATE TABLE standing (
    id         TEXT PRIMARY KEY REFERENCES orders (id),
    due        BIGINT NOT NULL, -- when the next run is due; 0: no run follows
    next_run   BIGINT NOT NULL, -- its number
    newest     TEXT NOT NULL REFERENCES transfers (id), -- the run that was begun last
    newest_run BIGINT NOT NULL,
    runs       BIGINT NOT NULL, -- that were begun
    skipped    BIGINT NOT NULL, -- that were due and not begun
    note       TEXT NOT NULL    -- public: why the run that is due is not begun
);
CREATE INDEX standing_due ON standing (due, id);
CREATE TABLE standing_accounts (
    account TEXT NOT NULL,
    id      TEXT NOT NULL REFERENCES standing (id),
    PRIMARY KEY (account, id)
);

CREATE TABLE withdrawals (
    target  TEXT PRIMARY KEY REFERENCES orders (id),
    id      TEXT NOT NULL REFERENCES orders (id), -- of the order to withdraw
    account TEXT NOT NULL,                        -- that withdrew
    came    BIGINT NOT NULL,
    expires BIGINT NOT NULL
);
-- Agents that have not said yet that they know of a withdrawal.
CREATE TABLE notices (
    agent  TEXT NOT NULL,
    target TEXT NOT NULL REFERENCES withdrawals (target),
    tried  BIGINT NOT NULL, -- when it was sent last
    PRIMARY KEY (agent, target)
);
CREATE INDEX notices_tried ON notices (tried);
