-- The decision that `bench ledger` asks the ledger for, as one would write it for PostgreSQL: units of an item for a
-- workload, within the limits of its tenant and of everyone above it, with the workload's record, the announcement and
-- the position of the stream in the same transaction. Rows are locked from the top down, so that no two callers lock
-- each other out.
--
-- In its favour: it does not check that tenants, items and plans are still as the decision was computed from, raises no
-- notices, and merges no usage announcements, all of which the ledger does.

CREATE TABLE account (
  tenant integer,
  item text,
  depth integer NOT NULL,
  used bigint NOT NULL DEFAULT 0,
  reserved bigint NOT NULL DEFAULT 0,
  value bigint,
  overage bigint,
  PRIMARY KEY (tenant, item)
) WITH (fillfactor = 50);

CREATE TABLE workload (
  tenant integer,
  id uuid DEFAULT gen_random_uuid(),
  version bigint NOT NULL DEFAULT 1,
  payload text NOT NULL,
  PRIMARY KEY (tenant, id)
);

CREATE TABLE outbox (
  revision bigserial PRIMARY KEY,
  facts text NOT NULL
);

CREATE TABLE stream (
  source integer PRIMARY KEY,
  place bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

INSERT INTO stream SELECT number FROM generate_series(0, 1000) AS number;

CREATE FUNCTION decide(path integer[], wanted text, quantity bigint, stream_source integer, record text, announcement text)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM account WHERE tenant = ANY (path) AND item = wanted ORDER BY depth, tenant FOR NO KEY UPDATE;
  IF EXISTS (
    SELECT 1 FROM account
    WHERE tenant = ANY (path) AND item = wanted AND overage IS NOT NULL AND used + quantity > value + overage
  ) THEN
    RETURN false;
  END IF;
  UPDATE account SET used = used + quantity WHERE tenant = ANY (path) AND item = wanted;
  INSERT INTO workload (tenant, payload) VALUES (path[1], record);
  INSERT INTO outbox (facts) VALUES (announcement);
  UPDATE stream SET place = place + 1 WHERE source = stream_source;
  RETURN true;
END
$$;
