"""An index of the accounts that need somebody's help, built beside the writers.

Alone in its revision: it cannot be part of a transaction, so what came before it must be done.

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
        # It takes as long as a look at every row takes, and waits for transactions under way, but in nobody's way.
        op.execute("SET statement_timeout = 0")
        op.execute("SET lock_timeout = 0")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_INDEX}")  # what an interrupted attempt has left
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
