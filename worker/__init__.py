"""Keeps Microsoft OAuth 2.0 tokens of mailboxes fresh: Celery beat and workers, Postgres, Redis, MSAL."""

__version__ = "0.1.0"
