-- +goose Up
-- Under which generation of lists and settings the items of a batch were judged; 0: they were not, or cannot be for good.
ALTER TABLE batches ADD COLUMN judged BIGINT NOT NULL DEFAULT 0;
-- From when they are to be judged anew although nothing has changed; 0: never.
ALTER TABLE batches ADD COLUMN judge_after BIGINT NOT NULL DEFAULT 0;
-- How fast its sources may be read, bytes a second; 0 is no limit.
ALTER TABLE batches ADD COLUMN rate BIGINT NOT NULL DEFAULT 0;
-- Containers with an assigned size that an order has met: batches hold room in them from then on.
CREATE TABLE meters (
    provider  TEXT NOT NULL,
    container TEXT NOT NULL,
    name      TEXT NOT NULL,
    PRIMARY KEY (provider, container, name)
);
-- What batches have reserved in metered containers. Rows exist only while their batch has not ended.
CREATE TABLE holdings (
    provider  TEXT NOT NULL,
    container TEXT NOT NULL,
    name      TEXT NOT NULL,
    xfr       TEXT NOT NULL,
    bat       BIGINT NOT NULL,
    bytes     BIGINT NOT NULL,
    PRIMARY KEY (provider, container, name, xfr, bat),
    FOREIGN KEY (xfr, bat) REFERENCES batches (xfr, bat)
);
CREATE INDEX holdings_batch ON holdings (xfr, bat);
