"""A URL of a store that cannot be used is refused with the part that is wrong, and without the password."""

from pathlib import Path

import pytest
import trustme

from tests.unit.settings.environment import Environment, complaint
from worker.db.address import parameters, unverified_hosts
from worker.settings import Settings, load

HOST = "db.example:5432/worker"


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("app:hunter2@db.example", "is no URL"),
        ("host=db.example password=hunter2", "is no URL"),
        (f"postgresql://app:hunter2 2@{HOST}", "is no URL"),
        (f"mysql://app:hunter2@{HOST}", "has an unknown scheme"),
        (f"postgresql://app:hunter2#x@{HOST}", "has a # in its password: write %23"),
        (f"postgresql://app:hunter2/x@{HOST}", "has a / in its password: write %2F"),
        (f"postgresql://app:hunter2?x@{HOST}", "has a ? in its password: write %3F"),
        (f"postgresql://app:hunter2@x@{HOST}", "has an @ in its password: write %40"),
        (f"postgresql://app:hunter2%x@{HOST}", "has a % that begins no code: write %25"),
        ("postgresql://app:hunter2@db.example:port/worker", "has no number from 1 to 65535 as its port"),
        ("postgresql://app:hunter2@db.example:70000/worker", "has no number from 1 to 65535 as its port"),
        ("postgresql://app:hunter2@one:5432,two:x/worker", "has no number from 1 to 65535 as its port"),
        ("postgresql://app:hunter2@/worker?host=one:1&host=two:x", "has no number from 1 to 65535 as its port"),
        ("postgresql://app:hunter2@[::1]:x/worker", "has no number from 1 to 65535 as its port"),
        ("postgresql://app:hunter2@/worker", "names no host"),
        (f"postgresql://app:hunter2@{HOST}?sslmode=verify", "has an unknown sslmode: it is one of disable, allow"),
        (f"postgresql://app:hunter2@{HOST}?ssl_mode=require", "has the parameter ssl_mode, which libpq does not know"),
    ],
)
def test_the_wrong_part_of_a_postgres_url_is_named(environment: Environment, url: str, part: str) -> None:
    environment.setenv("WORKER_DATABASE_URL", url)

    sentence = complaint()

    assert sentence.startswith(f"WORKER_DATABASE_URL {part}")
    assert "hunter2" not in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql:///worker?host=/run/postgresql", {"host": "/run/postgresql"}),
        ("postgresql://app@%2Frun%2Fpostgresql/worker", {"host": "/run/postgresql"}),
        ("postgresql://one:5432,two:5433/worker", {"host": "one,two", "port": "5432,5433"}),
        ("postgresql://app@/worker?host=one:1&host=two", {"host": "one,two", "port": "1,"}),
        ("postgresql://[::1]:5432/worker", {"host": "::1"}),
        ("postgresql:///?service=mail", {"service": "mail"}),
        ("postgresql://db.example/worker?passfile=/run/pass", {"passfile": "/run/pass"}),
        ("postgresql://db.example/worker?options=-csearch_path%3Dtokens", {"options": "-csearch_path=tokens"}),
        ("postgresql://a:p%40%23%2F@db.example/worker", {"password": "p@#/"}),
    ],
)
def test_every_form_of_libpq_is_accepted(environment: Environment, url: str, expected: dict[str, str]) -> None:
    environment.setenv("WORKER_DATABASE_URL", url)

    found = parameters(load(Settings).database_url.get_secret_value())

    assert expected.items() <= found.items()


def test_the_authorities_of_the_settings_hold_for_postgres(environment: Environment, tmp_path: Path) -> None:
    """Unless the URL names others, or demands no verification."""
    bundle = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(bundle))
    environment.setenv("WORKER_CA_BUNDLE", str(bundle))

    def authorities(query: str) -> object:
        environment.setenv("WORKER_DATABASE_URL", f"postgresql://db.example/worker?{query}")
        return parameters(load(Settings).database_url.get_secret_value()).get("sslrootcert")

    assert authorities("sslmode=verify-full") == str(bundle)
    assert authorities("sslmode=verify-ca") == str(bundle)
    assert authorities("sslmode=verify-full&sslrootcert=/own.pem") == "/own.pem"
    assert authorities("sslmode=require") is None


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://db.example/worker", ["db.example"]),
        ("postgresql://db.example/worker?sslmode=require", ["db.example"]),
        ("postgresql://localhost,db.example/worker?sslmode=verify-ca", ["db.example"]),
        ("postgresql://db.example/worker?sslmode=verify-full", []),
        ("postgresql://127.0.0.1/worker", []),
        ("postgresql:///worker?host=/run", []),
        ("postgresql:///?service=mail", []),
    ],
)
def test_a_host_whose_certificate_is_not_verified_is_known(url: str, hosts: list[str]) -> None:
    assert unverified_hosts(url) == hosts


def test_a_password_file_that_cannot_be_read_stops_the_start(environment: Environment) -> None:
    environment.setenv("WORKER_DATABASE_PASSWORD_FILE", "/nowhere/password")

    assert complaint().startswith("WORKER_DATABASE_PASSWORD_FILE must be the path of a file with a password")
