-- +goose Up
-- The certificate chain with which a subscriber was seen last, under a key that is settled: PEM.
CREATE TABLE account_chains (
    id    TEXT PRIMARY KEY,
    chain BLOB NOT NULL
);
