"""Drop the previous refresh token, which no code reads.

Old code does not run on it, because it writes the column. Stop all workers and consumers before this migration.

Revision: 20261127_2300
Revises: 20261126_2000
"""

import sqlalchemy as sa

from alembic import op

revision = "20261127_2300"
down_revision = "20261126_2000"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("mail_credentials", "previous_refresh_token")


def downgrade() -> None:
    op.add_column("mail_credentials", sa.Column("previous_refresh_token", sa.LargeBinary(), nullable=True))
    op.execute("ALTER TABLE mail_credentials ALTER COLUMN previous_refresh_token SET STORAGE EXTERNAL")
