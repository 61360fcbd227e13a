"""Partition the ledger by day, and keep plain successes apart, many in a row.

Old code runs on it: its rows go into the new ``refresh_events``. The old rows stay readable in ``refresh_events_old``,
which ``maintain_ledger`` drops when the newest of them is too old. No row is moved, and no table is read.

The worker's role needs the right to execute ``maintain_ledger``, which runs with the rights of the tables' owner.

Revision: 20261128_0300
Revises: 20261128_0240
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "20261128_0300"
down_revision = "20261128_0240"
branch_labels = None
depends_on = None

# A fresh database has no old row to keep.
_SET_OLD_TABLE_ASIDE = """
    DO $$
    BEGIN
        LOCK TABLE refresh_events;
        IF EXISTS (SELECT FROM refresh_events) THEN
            ALTER TABLE refresh_events RENAME TO refresh_events_old;
            ALTER SEQUENCE refresh_events_id_seq RENAME TO refresh_events_old_id_seq;
            ALTER INDEX pk_refresh_events RENAME TO pk_refresh_events_old;
            ALTER INDEX ix_refresh_events_account_id_id RENAME TO ix_refresh_events_old_account_id_id;
            ALTER INDEX ix_refresh_events_at RENAME TO ix_refresh_events_old_at;
            CREATE SEQUENCE refresh_events_id_seq;
            PERFORM setval('refresh_events_id_seq', nextval('refresh_events_old_id_seq'));
        ELSE
            DROP TABLE refresh_events;
            CREATE SEQUENCE IF NOT EXISTS refresh_events_id_seq;
        END IF;
    END
    $$
"""

_BRING_OLD_TABLE_BACK = """
    DO $$
    BEGIN
        IF to_regclass('refresh_events_old') IS NOT NULL THEN
            DROP TABLE refresh_events;
            DROP SEQUENCE refresh_events_id_seq;
            ALTER TABLE refresh_events_old RENAME TO refresh_events;
            ALTER SEQUENCE refresh_events_old_id_seq RENAME TO refresh_events_id_seq;
            ALTER INDEX pk_refresh_events_old RENAME TO pk_refresh_events;
            ALTER INDEX ix_refresh_events_old_account_id_id RENAME TO ix_refresh_events_account_id_id;
            ALTER INDEX ix_refresh_events_old_at RENAME TO ix_refresh_events_at;
        ELSE
            DROP TABLE refresh_events;
            DROP SEQUENCE refresh_events_id_seq;
            CREATE TABLE refresh_events (
                id bigserial CONSTRAINT pk_refresh_events PRIMARY KEY,
                account_id uuid NOT NULL,
                at timestamptz NOT NULL,
                trigger text NOT NULL,
                outcome text NOT NULL,
                code text NOT NULL,
                latency_ms integer NOT NULL,
                correlation_id text,
                fingerprint_before text NOT NULL,
                fingerprint_after text
            );
            CREATE INDEX ix_refresh_events_account_id_id ON refresh_events (account_id, id);
            CREATE INDEX ix_refresh_events_at ON refresh_events USING brin (at);
        END IF;
    END
    $$
"""

# Locks are short, and waited for briefly, because refreshes would queue behind. The next run does the rest. The default
# partition has the rows of days without one. It is emptied at once, when all of its rows are too old. A day of which it
# has rows gets no partition, so that none has to be moved.
_MAINTAIN = """
    CREATE OR REPLACE FUNCTION maintain_ledger(at_time timestamptz, event_days integer, success_days integer)
    RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT SET lock_timeout = '500ms' SET timezone = 'UTC'
    AS $$
    DECLARE
        today date := at_time::date; oldest timestamptz; day date; days integer;
        parent text; name text; found boolean; dropped integer := 0;
    BEGIN
        IF NOT pg_try_advisory_xact_lock(hashtext('maintain_ledger')) THEN
            RETURN 0;
        END IF;
        FOR parent, days IN VALUES ('refresh_events', event_days), ('refresh_successes', success_days) LOOP
            oldest := (today - days + 1)::timestamptz;
            FOR day IN SELECT today + n FROM generate_series(0, 3) AS n LOOP
                name := parent || to_char(day, '_YYYYMMDD');
                EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE at >= $1 AND at < $2)', parent || '_default')
                    INTO found USING day::timestamptz, (day + 1)::timestamptz;
                CONTINUE WHEN found OR to_regclass(name) IS NOT NULL;
                BEGIN
                    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', name, parent);
                    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                                   parent, name, day::timestamptz, (day + 1)::timestamptz);
                EXCEPTION WHEN lock_not_available OR check_violation THEN
                    NULL;
                END;
            END LOOP;
            FOR name IN
                SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
                WHERE inhparent = parent::regclass AND relname ~ '_[0-9]{8}$'
                    AND right(relname, 8)::date::timestamptz < oldest
            LOOP
                BEGIN
                    EXECUTE format('DROP TABLE %I', name);
                    dropped := dropped + 1;
                EXCEPTION WHEN lock_not_available THEN
                    NULL;
                END;
            END LOOP;
            EXECUTE format('SELECT EXISTS (SELECT FROM %1$I) AND NOT EXISTS'
                           ' (SELECT FROM %1$I WHERE at >= $1 AND at < $2)', parent || '_default')
                INTO found USING oldest, at_time + interval '1 day';
            IF found THEN
                BEGIN
                    EXECUTE format('TRUNCATE %I', parent || '_default');
                    dropped := dropped + 1;
                EXCEPTION WHEN lock_not_available THEN
                    NULL;
                END;
            END IF;
        END LOOP;
        IF to_regclass('refresh_events_old') IS NOT NULL THEN
            EXECUTE 'SELECT at < $1 FROM refresh_events_old ORDER BY id DESC LIMIT 1'
                INTO found USING (today - event_days + 1)::timestamptz;
            IF found IS NOT FALSE THEN
                BEGIN
                    DROP TABLE refresh_events_old;
                    dropped := dropped + 1;
                EXCEPTION WHEN lock_not_available THEN
                    NULL;
                END;
            END IF;
        END IF;
        RETURN dropped;
    END
    $$
"""


def upgrade() -> None:
    op.execute(_SET_OLD_TABLE_ASIDE)
    op.create_table(
        "refresh_events",
        sa.Column("id", sa.BigInteger(), server_default=sa.text("nextval('refresh_events_id_seq')"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("client", sa.Text(), server_default=sa.text("'default'"), nullable=False),
        sa.Column("trigger", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("latency_ms", sa.Integer(), nullable=False),
        sa.Column("correlation_id", sa.Text(), nullable=True),
        sa.Column("fingerprint_before", sa.Text(), nullable=False),
        sa.Column("fingerprint_after", sa.Text(), nullable=True),
        postgresql_partition_by="RANGE (at)",
    )
    op.create_index("ix_refresh_events_account_id_id", "refresh_events", ["account_id", "id"])
    op.create_index("ix_refresh_events_at_id", "refresh_events", ["at", "id"], postgresql_using="brin")
    op.create_table(
        "refresh_successes",
        sa.Column("id", sa.BigInteger(), server_default=sa.text("nextval('refresh_events_id_seq')"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("trigger", sa.Text(), nullable=False),
        sa.Column("refreshes", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        postgresql_partition_by="RANGE (at)",
    )
    op.create_index("ix_refresh_successes_at_id", "refresh_successes", ["at", "id"], postgresql_using="brin")
    op.execute("ALTER TABLE refresh_successes ALTER refreshes SET STORAGE MAIN")  # in the row, also if there are many
    for table in ("refresh_events", "refresh_successes"):
        op.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
    op.execute(_MAINTAIN)
    op.execute("REVOKE ALL ON FUNCTION maintain_ledger FROM PUBLIC")


def downgrade() -> None:
    op.execute("DROP FUNCTION maintain_ledger")
    op.drop_table("refresh_successes")
    op.execute(_BRING_OLD_TABLE_BACK)
