-- +goose Up
-- What an agent's local policy says of a container to this broker, and what a transfer rests on.
ALTER TABLE containers ADD COLUMN session BIGINT NOT NULL DEFAULT 0;   -- takes orders on the broker's word alone
ALTER TABLE containers ADD COLUMN max_items BIGINT NOT NULL DEFAULT 0; -- of a batch; 0 is no limit
ALTER TABLE containers ADD COLUMN max_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE transfers ADD COLUMN authority TEXT NOT NULL DEFAULT 'order';
