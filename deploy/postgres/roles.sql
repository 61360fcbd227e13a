-- The roles of Postgres, each without a password at first. Run once in the database, as a superuser or a role with
-- CREATEROLE. It may run again.
--   psql "$SUPERUSER_URL" --file roles.sql
--   psql "$SUPERUSER_URL" --command '\password token_worker'     (likewise for each role that you use)
-- Then: token-worker migrate as token_worker_owner, and grants.sql as the same.

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY[
        'token_worker_owner',    -- owns the tables: token-worker migrate
        'token_worker',          -- workers, full consumers, token-worker
        'token_worker_reader',   -- consumers with access keys
        'token_worker_exporter'  -- token-worker exporter
    ] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION', role);
        END IF;
    END LOOP;
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO token_worker_owner, token_worker, token_worker_reader,'
                   ' token_worker_exporter', current_database());
END
$$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO token_worker_owner;
GRANT USAGE ON SCHEMA public TO token_worker, token_worker_reader, token_worker_exporter;
