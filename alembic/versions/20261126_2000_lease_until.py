"""The end of a lease in a column of its own: a claim that leaves the due time alone changes no index.

Old code runs on it, but not beside new code: it takes what that has leased for due, and refresh tokens are spent twice.
The leases that it leaves, whose end is the due time, are understood.

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
