"""Add POP servers, and the time of the last change of an account's status.

Old code runs on it unchanged. The columns may be NULL, and their addition rewrites no row.

Revision: 20261125_2100
Revises: 20261124_1800
"""

import sqlalchemy as sa

from alembic import op

revision = "20261125_2100"
down_revision = "20261124_1800"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("mail_credentials", sa.Column("pop_host", sa.Text(), nullable=True))
    op.add_column("mail_credentials", sa.Column("pop_port", sa.Integer(), nullable=True))
    op.add_column("mail_credentials", sa.Column("status_changed_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("mail_credentials", "status_changed_at")
    op.drop_column("mail_credentials", "pop_port")
    op.drop_column("mail_credentials", "pop_host")
