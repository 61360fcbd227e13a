"""Add the type of client that a grant belongs to.

Old code runs on it, because it does not read the column. NULL stands for a confidential client, and takes no space.

Revision: 20261128_0330
Revises: 20261128_0320
"""

import sqlalchemy as sa

from alembic import op

revision = "20261128_0330"
down_revision = "20261128_0320"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("mail_credentials", sa.Column("client_type", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("mail_credentials", "client_type")
