"""Give the database an id, by which Redis knows whose fleet uses a namespace.

Old code runs on it, because it does not read the table.

Revision: 20261128_0210
Revises: 20261128_0200
"""

import sqlalchemy as sa

from alembic import op

revision = "20261128_0210"
down_revision = "20261128_0200"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "fleet",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_fleet"),
    )
    op.execute("INSERT INTO fleet DEFAULT VALUES")


def downgrade() -> None:
    op.drop_table("fleet")
