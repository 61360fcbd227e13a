"""Store tokens out of line, because a lease rewrites a row, and tokens would be nine tenths of it.

It applies to each row when it is written, so to all rows after one cycle of refreshes. Old code runs on it unchanged.

Revision: 20261125_2200
Revises: 20261125_2101
"""

from alembic import op

revision = "20261125_2200"
down_revision = "20261125_2101"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE mail_credentials SET (toast_tuple_target = 128)")


def downgrade() -> None:
    op.execute("ALTER TABLE mail_credentials RESET (toast_tuple_target)")
