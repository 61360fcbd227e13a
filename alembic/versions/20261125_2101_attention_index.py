"""Add an index of the accounts that need attention, without blocking writers.

It is alone in its revision, because it cannot be part of a transaction.

Revision: 20261125_2101
Revises: 20261125_2100
"""

import sqlalchemy as sa

from alembic import op

revision = "20261125_2101"
down_revision = "20261125_2100"
branch_labels = None
depends_on = None

_INDEX = "ix_mail_credentials_attention"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # No time limits: it reads every row and waits for open transactions, but blocks no statement.
        op.execute("SET statement_timeout = 0")
        op.execute("SET lock_timeout = 0")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_INDEX}")  # of an interrupted attempt
        op.create_index(
            _INDEX,
            "mail_credentials",
            ["status_changed_at"],
            postgresql_where=sa.text("status IN ('reauth_required', 'blocked', 'unreadable')"),
            postgresql_concurrently=True,
        )
        op.execute("SET statement_timeout = '60s'")
        op.execute("SET lock_timeout = '4s'")


def downgrade() -> None:
    op.drop_index(_INDEX, "mail_credentials")
