-- +goose Up
-- Transfers whose capabilities are taken back while one of them may still live. The newest list of
-- them is a note in meta.
CREATE TABLE revocations (
    xfr    TEXT PRIMARY KEY,
    reason TEXT NOT NULL,
    ends   BIGINT NOT NULL -- from when none of its capabilities can live
);
CREATE INDEX revocations_ends ON revocations (ends);
ALTER TABLE transfers ADD COLUMN paused BIGINT NOT NULL DEFAULT 0; -- since when; 0 is not
