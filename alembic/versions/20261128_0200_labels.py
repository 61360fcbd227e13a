"""Add the labels of accounts.

Old code runs on it, because it does not read the column. An account without labels has NULL, which takes no space.

Revision: 20261128_0200
Revises: 20261128_0000
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "20261128_0200"
down_revision = "20261128_0000"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("mail_credentials", sa.Column("labels", postgresql.ARRAY(sa.Text()), nullable=True))


def downgrade() -> None:
    op.drop_column("mail_credentials", "labels")
