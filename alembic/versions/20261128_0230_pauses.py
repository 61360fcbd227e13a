"""Add the table of pauses.

Old code runs on it, and makes new sign-ins of a paused group active, because it does not read the table.

Revision: 20261128_0230
Revises: 20261128_0210
"""

import sqlalchemy as sa

from alembic import op

revision = "20261128_0230"
down_revision = "20261128_0210"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pauses",
        sa.Column("client", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("domain", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("client", "domain", name=op.f("pk_pauses")),
    )


def downgrade() -> None:
    op.drop_table("pauses")
