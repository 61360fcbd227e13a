"""The naive way of tutorials: one Celery task per account, each with a default MSAL app, an ORM session and SETEX.

It is faster than it should be, because it stores tokens in the clear, has no ledger, lease or lock, and MSAL does not
look the authority up at Microsoft.
"""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msal
import redis
from celery import Celery
from sqlalchemy import DateTime, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

_SCAN_LIMIT = 500  # accounts
_SCOPES = ["https://outlook.office.com/IMAP.AccessAsUser.All", "https://outlook.office.com/SMTP.Send"]

app = Celery("naive", broker=os.environ.get("WORKER_REDIS_URL", "memory://"))
app.conf.update(
    task_ignore_result=True,
    worker_send_task_events=True,
    broker_connection_retry_on_startup=True,
    task_default_queue="naive",
    beat_schedule={"scan": {"task": "bench.naive.scan", "schedule": 1.0, "options": {"expires": 5}}},
    beat_scheduler="celery.beat:Scheduler",
)
engine = create_engine(os.environ.get("WORKER_DATABASE_URL", "sqlite://"))
cache = redis.Redis.from_url(os.environ.get("WORKER_REDIS_URL", "redis://localhost"))


class Base(DeclarativeBase):
    """The naive way's own table."""


class Account(Base):
    """One mailbox."""

    __tablename__ = "naive_accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    refresh_token: Mapped[str]
    access_token: Mapped[str | None]
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    due_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), index=True)


@app.task
def scan() -> None:
    """Send one task per due account."""
    now = datetime.now(UTC)
    with Session(engine) as session:
        due = session.scalars(select(Account).where(Account.due_at <= now).limit(_SCAN_LIMIT)).all()
        for account in due:
            account.due_at = now + timedelta(minutes=10)
        ids = [account.id for account in due]
        session.commit()
    for number in ids:
        refresh.delay(number)


@app.task
def refresh(number: int) -> None:
    """Refresh one account."""
    msal_app = msal.ConfidentialClientApplication(
        os.environ["WORKER_CLIENT_ID"],
        client_credential=os.environ["WORKER_CLIENT_SECRET"],
        authority=os.environ["WORKER_AUTHORITY"],
        instance_discovery=False,
    )
    with Session(engine) as session:
        account = session.get_one(Account, number)
        result: dict[str, Any] = msal_app.acquire_token_by_refresh_token(account.refresh_token, _SCOPES)
        account.access_token, account.refresh_token = result["access_token"], result["refresh_token"]
        account.expires_at = datetime.now(UTC) + timedelta(seconds=result["expires_in"])
        account.due_at = account.expires_at - timedelta(minutes=5)
        session.commit()
        entry = {"access_token": account.access_token, "refresh_token": account.refresh_token, "at": time.time()}
        cache.setex(f"naive:{account.email}", result["expires_in"], json.dumps(entry))
