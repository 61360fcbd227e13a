"""The settings of a consumer that only reads, and the choice between it and one that also stores and refreshes."""

import pytest

from tests.unit.settings.environment import COMPLETE, Environment, put
from worker.domain.errors import ConfigurationError
from worker.settings import KeySettings, ReaderSettings, Settings, check_names, load, load_consumer
from worker.vault import format_access_keys, generate_key, parse_keys

ACCESS = format_access_keys(parse_keys(generate_key("k1")))
SMALLEST = {"WORKER_REDIS_URL": COMPLETE["WORKER_REDIS_URL"], "WORKER_ACCESS_KEYS": ACCESS}


def _complaint() -> str:
    with pytest.raises(ConfigurationError) as refusal:
        load_consumer()
    return str(refusal.value)


def test_with_access_keys_alone_it_only_reads(monkeypatch: Environment) -> None:
    """It needs two variables."""
    put(monkeypatch, SMALLEST)

    settings = load_consumer()

    assert isinstance(settings, ReaderSettings)
    assert settings.database_url is None
    assert settings.broker == SMALLEST["WORKER_REDIS_URL"]
    assert [key.id for key in settings.keys] == ["k1"]
    check_names()


def test_empty_variables_count_as_unset(monkeypatch: Environment) -> None:
    """Containers pass unset variables as empty ones."""
    put(monkeypatch, {**SMALLEST, "WORKER_ENCRYPTION_KEYS": "", "WORKER_DATABASE_URL": "", "WORKER_BROKER_URL": ""})

    settings = load_consumer()

    assert isinstance(settings, ReaderSettings)
    assert settings.database_url is None
    assert settings.broker == SMALLEST["WORKER_REDIS_URL"]


def test_with_encryption_keys_it_also_stores_and_refreshes(environment: Environment) -> None:
    """Access keys do not change this, because they are a part of the encryption keys."""
    assert isinstance(load_consumer(), Settings)
    put(environment, {"WORKER_ACCESS_KEYS": ACCESS})
    assert isinstance(load_consumer(), Settings)


def test_without_any_key_the_encryption_keys_are_reported_missing(environment: Environment) -> None:
    """Most consumers without a key are meant to store and refresh, too."""
    environment.delenv("WORKER_ENCRYPTION_KEYS")
    assert "WORKER_ENCRYPTION_KEYS is not set" in _complaint()
    with pytest.raises(ConfigurationError, match="WORKER_ENCRYPTION_KEYS is not set"):
        _ = load(KeySettings).keys


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"WORKER_REDIS_URL": ""}, "WORKER_REDIS_URL is no URL: it must look like"),
        ({"WORKER_DATABASE_URL": "mysql://hunter2"}, "WORKER_DATABASE_URL has an unknown scheme: it must look like"),
        ({"WORKER_ACCESS_KEYS": "k1:hunter2"}, "token-worker keygen --access"),
        ({"WORKER_ACCESS_KEYS": generate_key("k1")}, "64 bytes in base64"),
        ({"WORKER_ACCESS_KEYS": ","}, "WORKER_ACCESS_KEYS is empty"),
        ({"WORKER_ACCESS_KEYS": f"{ACCESS},{ACCESS}"}, "WORKER_ACCESS_KEYS: key id 'k1' appears twice"),
    ],
)
def test_a_mistake_is_one_sentence(monkeypatch: Environment, changes: dict[str, str], advice: str) -> None:
    """The sentence says what to set and quotes no value."""
    put(monkeypatch, {**SMALLEST, **changes})

    sentence = _complaint()

    assert advice in sentence
    assert "hunter2" not in sentence
    assert len(sentence.splitlines()) == 1


def test_an_access_key_does_not_show_itself(monkeypatch: Environment) -> None:
    """It opens access tokens."""
    put(monkeypatch, SMALLEST)
    settings = load_consumer()

    shown = f"{settings!r} {settings.keys!r}"

    assert "k1" in shown
    assert ACCESS.partition(":")[2][:20] not in shown
