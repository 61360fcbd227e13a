"""A complete set of variables, and the error message of an incomplete one."""

from typing import TypeAlias

import pytest

from worker.domain.errors import ConfigurationError
from worker.settings import BrokerSettings, DatabaseSettings, Settings, load
from worker.vault import generate_key

COMPLETE = {
    "WORKER_DATABASE_URL": "postgresql://app:hunter2@db.example:5432/worker",
    "WORKER_REDIS_URL": "redis://:hunter2@cache.example:6379/0",
    "WORKER_ENCRYPTION_KEYS": generate_key("k1"),
    "WORKER_CLIENT_ID": "an-app",
    "WORKER_CLIENT_SECRET": "hunter2",
}
FABRIKAM = {"WORKER_CLIENTS__FABRIKAM__CLIENT_ID": "theirs", "WORKER_CLIENTS__FABRIKAM__CLIENT_SECRET": "hunter2 too"}

Environment: TypeAlias = pytest.MonkeyPatch


def put(environment: Environment, values: dict[str, str]) -> None:
    for name, value in values.items():
        environment.setenv(name, value)


def complaint(kind: type[Settings | DatabaseSettings | BrokerSettings] = Settings) -> str:
    with pytest.raises(ConfigurationError) as refusal:
        load(kind)
    sentence = str(refusal.value)
    assert "hunter2" not in sentence, sentence
    assert len(sentence.splitlines()) == 1, sentence
    return sentence
