"""The tables. The migrations in ``alembic/`` are what a database gets; ``alembic check`` holds the two together."""

from datetime import datetime, timedelta
from typing import ClassVar
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Sequence,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from worker.domain.account import NEEDS_ATTENTION, Status

_STATES = ", ".join(f"'{status}'" for status in Status)
_ATTENTION = ", ".join(f"'{status}'" for status in Status if status in NEEDS_ATTENTION)


class Base(DeclarativeBase):
    """Every constraint gets a predictable name, so that a migration can drop it."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        bytes: LargeBinary,
        datetime: DateTime(timezone=True),
        int: Integer,
        str: Text,
        timedelta: Interval,
        UUID: Uuid,
    }


class MailCredential(Base):
    """One mailbox: its sealed tokens, when they are due, and what is wrong with them."""

    __tablename__ = "mail_credentials"
    __table_args__ = (
        CheckConstraint("email = lower(email)", name="email_is_lower"),
        CheckConstraint(f"status IN ({_STATES})", name="status_is_known"),
        CheckConstraint("refresh_due_at IS NULL OR use_oauth", name="only_oauth_is_due"),
        CheckConstraint(
            "refresh_due_at IS NULL OR status IN ('active', 'reauth_required', 'blocked')",
            name="only_refreshable_is_due",
        ),
        CheckConstraint("refresh_due_at IS NULL OR refresh_token IS NOT NULL", name="only_refresh_token_is_due"),
        # Rows that may not be leased have no due time, so this index holds those that may and nothing else. By app
        # registration first: those of one whose breaker is open must not stand in the way of the others'.
        Index(
            "ix_mail_credentials_due", "client", "refresh_due_at", postgresql_where=text("refresh_due_at IS NOT NULL")
        ),
        # Few accounts need attention: a watcher reads this index and nothing else.
        Index("ix_mail_credentials_attention", "status_changed_at", postgresql_where=text(f"status IN ({_ATTENTION})")),
        {
            # Every refresh rewrites the row: leave room on the page, and clean up before the bloat is worth mentioning.
            "postgresql_with": {
                "fillfactor": "80",
                "autovacuum_vacuum_scale_factor": "0.02",
                "autovacuum_vacuum_insert_scale_factor": "0.05",
                "autovacuum_analyze_scale_factor": "0.05",
                # A lease reads and rewrites rows, of which tokens would be nine tenths: all of them are kept aside.
                "toast_tuple_target": "128",
            },
        },
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    client: Mapped[str] = mapped_column(server_default=text("'default'"))
    authority: Mapped[str | None]
    scopes: Mapped[str] = mapped_column(server_default=text("''"))  # space-delimited, RFC 6749 3.3
    use_oauth: Mapped[bool] = mapped_column(server_default=text("true"))
    # NULL: Microsoft's own servers
    imap_host: Mapped[str | None]
    imap_port: Mapped[int | None]
    smtp_host: Mapped[str | None]
    smtp_port: Mapped[int | None]
    pop_host: Mapped[str | None]
    pop_port: Mapped[int | None]
    login_name: Mapped[str | None]  # NULL: the address
    # NULL: none. In no index, which every refresh would have to write; a command that selects by label reads all rows.
    labels: Mapped[list[str] | None] = mapped_column(ARRAY(Text))

    access_token: Mapped[bytes | None]
    refresh_token: Mapped[bytes | None]
    token_obtained_at: Mapped[datetime | None]
    token_expiry: Mapped[datetime | None]
    refresh_token_issued_at: Mapped[datetime | None]
    client_type: Mapped[str | None]  # that the grant belongs to, as learnt; NULL: confidential
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))

    status: Mapped[str] = mapped_column(server_default=text("'active'"))
    status_changed_at: Mapped[datetime | None]  # NULL: not since the account was stored
    refresh_due_at: Mapped[datetime | None]
    # The process that is refreshing the account, and until when; in no index, so that a lease changes none.
    lease_id: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]
    failure_kind: Mapped[str | None]
    failure_code: Mapped[str | None]
    failure_count: Mapped[int] = mapped_column(server_default=text("0"))
    failing_since: Mapped[datetime | None]
    failure_claims: Mapped[str | None]
    strikes: Mapped[int] = mapped_column(server_default=text("0"))
    struck_at: Mapped[datetime | None]  # the first of them
    last_refreshed_at: Mapped[datetime | None]
    signed_in_at: Mapped[datetime | None]
    grant_lifetime: Mapped[timedelta | None]  # as observed, where policy or platform end a grant at a fixed age

    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class OAuthClient(Base):
    """The circuit breaker of one app registration. Its secret is not here: the name finds it in the settings."""

    __tablename__ = "oauth_clients"

    name: Mapped[str] = mapped_column(primary_key=True)
    suspects: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid), server_default=text("'{}'"))
    failure_kind: Mapped[str | None]
    failure_code: Mapped[str | None]
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    opened_at: Mapped[datetime | None]
    open_until: Mapped[datetime | None]
    sign_in_admitted_at: Mapped[datetime | None]  # the last that was refreshed while it was open
    closed_at: Mapped[datetime | None]
    updated_at: Mapped[datetime]


class Fleet(Base):
    """One row: the id of this database, by which Redis knows whose fleet uses a namespace."""

    __tablename__ = "fleet"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))


class Pause(Base):
    """An app registration, a domain or both at once that an operator has paused. Empty: any."""

    __tablename__ = "pauses"

    client: Mapped[str] = mapped_column(primary_key=True, server_default=text("''"))
    domain: Mapped[str] = mapped_column(primary_key=True, server_default=text("''"))
    since: Mapped[datetime]


class AuditEvent(Base):
    """An act on an account, or without one, and who did it."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_account_id_at", "account_id", "at"),
        Index("ix_audit_events_at", "at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime]
    os_user: Mapped[str]
    host: Mapped[str]
    program: Mapped[str]
    action: Mapped[str]
    detail: Mapped[str | None]
    reason: Mapped[str | None]
    account_id: Mapped[UUID | None]  # no foreign key: the record outlives the account


_EVENT_ID = Sequence("refresh_events_id_seq", metadata=Base.metadata)

# Both tables of the ledger have a partition per day, so that old rows go without a DELETE. A primary key would have to
# contain the instant, and no statement needs one.

#: One row per request that failed, changed an account's state, or was no plain success. No secret is in it.
REFRESH_EVENTS = Table(
    "refresh_events",
    Base.metadata,
    Column("id", BigInteger, nullable=False, server_default=_EVENT_ID.next_value()),
    Column("account_id", Uuid, nullable=False),  # no foreign key: it would lock the account's row for every event
    Column("at", DateTime(timezone=True), nullable=False),
    Column("client", Text, nullable=False, server_default=text("'default'")),
    Column("trigger", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("latency_ms", Integer, nullable=False),
    Column("correlation_id", Text),
    Column("fingerprint_before", Text, nullable=False),
    Column("fingerprint_after", Text),
    Index("ix_refresh_events_account_id_id", "account_id", "id"),
    Index("ix_refresh_events_at_id", "at", "id", postgresql_using="brin"),
    postgresql_partition_by="RANGE (at)",
)

#: One row per group of plain successes that were written together, eight bytes each: the first six of the account's id,
#: and the milliseconds of the request. They are in order.
REFRESH_SUCCESSES = Table(
    "refresh_successes",
    Base.metadata,
    Column("id", BigInteger, nullable=False, server_default=_EVENT_ID.next_value()),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("client", Text, nullable=False),
    Column("trigger", Text, nullable=False),
    Column("refreshes", ARRAY(BigInteger), nullable=False),
    Index("ix_refresh_successes_at_id", "at", "id", postgresql_using="brin"),
    postgresql_partition_by="RANGE (at)",
)
