-- The rights of the roles. Run it as token_worker_owner, before the first worker starts and after each
-- `token-worker migrate`. It may run again.
--   psql "$OWNER_URL" --file grants.sql

-- Later migrations make tables, partitions and functions, and a worker needs them at once.
ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO token_worker;
ALTER DEFAULT PRIVILEGES GRANT USAGE, SELECT ON SEQUENCES TO token_worker;
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO token_worker;

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO token_worker;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO token_worker;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO token_worker;

DO $$
BEGIN
    IF to_regclass('mail_credentials') IS NULL THEN
        RETURN; -- before the first migration: the default privileges are enough for the worker
    END IF;

    REVOKE INSERT, UPDATE, DELETE ON alembic_version, fleet FROM token_worker;
    REVOKE UPDATE ON audit_events FROM token_worker; -- it deletes old lines

    GRANT SELECT ON mail_credentials, refresh_events, refresh_successes TO token_worker_reader;

    -- Counts and times. It sees no address, no token and no correlation id. In refresh_successes it sees the first 48
    -- bits of account ids, by which a known address can be recognised.
    GRANT SELECT (
        client, status, use_oauth, refresh_due_at, lease_id, lease_until, token_expiry, last_refreshed_at, signed_in_at,
        grant_lifetime, refresh_token_issued_at, failure_kind, failure_code, failure_count, failing_since
    ) ON mail_credentials TO token_worker_exporter;
    GRANT SELECT (id, at, client, trigger, outcome, code, latency_ms) ON refresh_events TO token_worker_exporter;
    GRANT SELECT ON refresh_successes, oauth_clients, pauses, alembic_version, refresh_events_id_seq
        TO token_worker_exporter;
END
$$;
