"""Add the login name of mailboxes whose user principal name is not the address.

Old code runs on it, because it does not read the column.

Revision: 20261128_0000
Revises: 20261127_2300
"""

import sqlalchemy as sa

from alembic import op

revision = "20261128_0000"
down_revision = "20261127_2300"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("mail_credentials", sa.Column("login_name", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("mail_credentials", "login_name")
