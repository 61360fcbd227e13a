"""Add the mailboxes with their sealed tokens, the breakers of app registrations, and the ledger of refreshes.

Revision: 20261124_1800
Revises: none
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "20261124_1800"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mail_credentials",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), server_default=sa.text("'default'"), nullable=False),
        sa.Column("authority", sa.Text(), nullable=True),
        sa.Column("scopes", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("use_oauth", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("imap_host", sa.Text(), nullable=True),
        sa.Column("imap_port", sa.Integer(), nullable=True),
        sa.Column("smtp_host", sa.Text(), nullable=True),
        sa.Column("smtp_port", sa.Integer(), nullable=True),
        sa.Column("access_token", sa.LargeBinary(), nullable=True),
        sa.Column("refresh_token", sa.LargeBinary(), nullable=True),
        sa.Column("previous_refresh_token", sa.LargeBinary(), nullable=True),
        sa.Column("token_obtained_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("token_expiry", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refresh_token_issued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'active'"), nullable=False),
        sa.Column("refresh_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_id", sa.Uuid(), nullable=True),
        sa.Column("failure_kind", sa.Text(), nullable=True),
        sa.Column("failure_code", sa.Text(), nullable=True),
        sa.Column("failure_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure_claims", sa.Text(), nullable=True),
        sa.Column("strikes", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("struck_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_refreshed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("signed_in_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("grant_lifetime", sa.Interval(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "refresh_due_at IS NULL OR status IN ('active', 'reauth_required', 'blocked')",
            name=op.f("ck_mail_credentials_only_refreshable_is_due"),
        ),
        sa.CheckConstraint(
            "status IN ('active', 'reauth_required', 'blocked', 'unreadable', 'paused', 'disconnected')",
            name=op.f("ck_mail_credentials_status_is_known"),
        ),
        sa.CheckConstraint("email = lower(email)", name=op.f("ck_mail_credentials_email_is_lower")),
        sa.CheckConstraint(
            "refresh_due_at IS NULL OR refresh_token IS NOT NULL",
            name=op.f("ck_mail_credentials_only_refresh_token_is_due"),
        ),
        sa.CheckConstraint("refresh_due_at IS NULL OR use_oauth", name=op.f("ck_mail_credentials_only_oauth_is_due")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mail_credentials")),
        sa.UniqueConstraint("email", name=op.f("uq_mail_credentials_email")),
        postgresql_with={
            "fillfactor": "80",
            "autovacuum_vacuum_scale_factor": "0.02",
            "autovacuum_vacuum_insert_scale_factor": "0.05",
            "autovacuum_analyze_scale_factor": "0.05",
        },
    )
    # Ciphertext does not compress, and the attempt would take CPU at every refresh.
    for column in ("access_token", "refresh_token", "previous_refresh_token"):
        op.execute(f"ALTER TABLE mail_credentials ALTER COLUMN {column} SET STORAGE EXTERNAL")
    op.create_index(
        "ix_mail_credentials_due",
        "mail_credentials",
        ["client", "refresh_due_at"],
        unique=False,
        postgresql_where=sa.text("refresh_due_at IS NOT NULL"),
    )
    op.create_table(
        "oauth_clients",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("suspects", postgresql.ARRAY(sa.Uuid()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("failure_kind", sa.Text(), nullable=True),
        sa.Column("failure_code", sa.Text(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("open_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_oauth_clients")),
    )
    op.create_table(
        "refresh_events",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("trigger", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("latency_ms", sa.Integer(), nullable=False),
        sa.Column("correlation_id", sa.Text(), nullable=True),
        sa.Column("fingerprint_before", sa.Text(), nullable=False),
        sa.Column("fingerprint_after", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refresh_events")),
    )
    op.create_index("ix_refresh_events_account_id_id", "refresh_events", ["account_id", "id"], unique=False)
    op.create_index("ix_refresh_events_at", "refresh_events", ["at"], unique=False, postgresql_using="brin")


def downgrade() -> None:
    op.drop_table("refresh_events")
    op.drop_table("oauth_clients")
    op.drop_table("mail_credentials")
