"""One sentence for each mistake in the settings, with the name of the setting and without its value."""

from typing import Any

from pydantic import ValidationError

PREFIX = "WORKER_"
HINTS = {
    "database_url": "the Postgres URL, postgresql://user:password@host:5432/database",
    "redis_url": "the Redis URL, redis://:password@host:6379/0",
    "access_keys": "a consumer's part of the encryption keys; make it with: token-worker keygen --access",
    "encryption_keys": "id:base64 keys, newest first; make one with: token-worker keygen",
}


def sentence(error: ValidationError) -> str:
    """All mistakes that pydantic has found."""
    return "; ".join(_mistake(detail) for detail in error.errors(include_url=False, include_input=False))


def _mistake(detail: Any) -> str:
    location = [str(part) for part in detail["loc"]]
    name = PREFIX + "__".join(location).upper() if location else ""
    if detail["type"] == "missing":
        hint = HINTS.get(location[-1], "it has no default")
        return f"{name} is not set: {hint}"
    text = str(detail["msg"]).removeprefix("Value error, ")
    if text.startswith(("CLIENT_", "NEXT_", "AUTHORITY ", "CLOUD ")):  # about two fields of one app registration
        return f"{name or PREFIX.rstrip('_')}{'__' if name else '_'}{text}"
    return f"{name} {text}".strip()
