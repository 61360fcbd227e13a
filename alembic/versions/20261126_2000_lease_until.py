"""Add a column for the end of a lease. A lease that does not change the due time writes to no index.

Old code runs on it, but not beside new code. It would treat accounts that new code has leased as due, and use refresh
tokens twice. New code understands the leases of old code, whose end is the due time.

Revision: 20261126_2000
Revises: 20261125_2200
"""

import sqlalchemy as sa

from alembic import op

revision = "20261126_2000"
down_revision = "20261125_2200"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("mail_credentials", sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("mail_credentials", "lease_until")
