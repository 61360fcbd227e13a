"""Add when a breaker opened, and when it last let a new sign-in through.

Old code runs on it, and leaves the columns alone: a breaker that it closes has no time of opening for new code either.

Revision: 20261128_0240
Revises: 20261128_0230
"""

import sqlalchemy as sa

from alembic import op

revision = "20261128_0240"
down_revision = "20261128_0230"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("opened_at", "sign_in_admitted_at"):
        op.add_column("oauth_clients", sa.Column(name, sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    for name in ("sign_in_admitted_at", "opened_at"):
        op.drop_column("oauth_clients", name)
