"""A URL of a store that cannot be used is refused with the part that is wrong, and without the password."""

from pathlib import Path
from typing import cast

import pytest
import trustme

from tests.unit.settings.environment import Environment, complaint
from worker.broker import broker_address
from worker.db.address import parameters, unverified_hosts
from worker.domain.redis_url import RedisAddress, parse
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


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("cache.example:6380,password=hunter2,ssl=True", "is no URL"),
        ("http://:hunter2@cache.example", "has an unknown scheme"),
        ("redis+cluster://:hunter2@cache.example", "leads to a Redis Cluster, which cannot be used"),
        ("redis://:hunter2#@cache.example/0", "has a # in its password: write %23"),
        ("redis://:hunter2/x@cache.example/0", "has a / in its password: write %2F"),
        ("redis://:hunter2?x@cache.example/0", "has a ? in its password: write %3F"),
        ("redis://:hunter2@cache.example:port/0", "has no number from 1 to 65535 as its port"),
        ("redis://:hunter2@cache.example/hunter2", "has no number as its database"),
        ("redis://:hunter2@/0", "names no host"),
        ("redis://:hunter2@one,two/0", "has several hosts"),
        ("sentinel://:hunter2@one,two/0", "names no primary: sentinel://one,two/0?master=name"),
        ("sentinel://:hunter2@one,two:x/0?master=m", "has no number from 1 to 65535 as its port"),
        ("unix://:hunter2@", "names no socket"),
        ("redis://cache.example/0?socket_timeout=5", "has the parameter socket_timeout"),
        ("redis://cache.example/0?Hunter2%20=5", "has the parameter an unknown name"),
        ("redis://cache.example/0?credential_provider=a.b", "has a credential_provider: name a file"),
        ("rediss://:hunter2@cache.example/0?ssl_cert_reqs=none", "must verify the server's certificate"),
    ],
)
@pytest.mark.parametrize("name", ["WORKER_REDIS_URL", "WORKER_BROKER_URL"])
def test_the_wrong_part_of_a_redis_url_is_named(environment: Environment, name: str, url: str, part: str) -> None:
    environment.setenv(name, url)

    sentence = complaint()

    assert sentence.startswith(f"{name} {part}")
    assert "hunter2" not in sentence.lower()
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("amqp://app:hunter2/x@mq.example/vhost", "has a / in its password: write %2F"),
        ("amqp://app:hunter2@mq.example:port/vhost", "has no number from 1 to 65535 as its port"),
        ("amqps://app:hunter2@mq.example/vhost?ssl_cert_reqs=none", "must verify the server's certificate"),
    ],
)
def test_the_wrong_part_of_an_amqp_url_is_named(environment: Environment, url: str, part: str) -> None:
    environment.setenv("WORKER_BROKER_URL", url)

    assert complaint().startswith(f"WORKER_BROKER_URL {part}")
    assert "hunter2" not in complaint()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache.example", RedisAddress(hosts=(("cache.example", 6379),))),
        ("valkey://u:p%40@[::1]:7/3", RedisAddress(hosts=(("::1", 7),), username="u", password="p@", database=3)),
        ("valkeys://cache.example/0", RedisAddress(hosts=(("cache.example", 6379),), tls={})),
        ("redis://:raw@sign@cache.example", RedisAddress(hosts=(("cache.example", 6379),), password="raw@sign")),
        ("unix://:p@/run/v.sock?db=2", RedisAddress(socket="/run/v.sock", password="p", database=2)),
        ("unix:///run/v.sock", RedisAddress(socket="/run/v.sock")),
        (
            "sentinel://:p@one,two:7/1?master=mail&sentinel_password=q",
            RedisAddress(
                hosts=(("one", 26379), ("two", 7)), password="p", database=1, master="mail", sentinel_password="q"
            ),
        ),
    ],
)
def test_every_form_of_a_redis_url_is_accepted(environment: Environment, url: str, expected: RedisAddress) -> None:
    environment.setenv("WORKER_REDIS_URL", url)

    assert parse(load(Settings).redis_url.get_secret_value()) == expected


def test_the_authorities_and_the_file_of_the_settings_hold_for_redis(environment: Environment, tmp_path: Path) -> None:
    """Unless the URL names others. A broker of its own has a password of its own."""
    bundle, file = tmp_path / "ca.pem", tmp_path / "password"
    trustme.CA().cert_pem.write_to_path(str(bundle))
    file.write_text("hunter2")
    environment.setenv("WORKER_CA_BUNDLE", str(bundle))
    environment.setenv("WORKER_REDIS_PASSWORD_FILE", str(file))
    environment.setenv("WORKER_REDIS_URL", "rediss://cache.example/0")

    shared = parse(load(Settings).broker)
    environment.setenv("WORKER_BROKER_URL", "rediss://broker.example/0?ssl_ca_certs=/own.pem")
    cache, broker = parse(load(Settings).redis_url.get_secret_value()), parse(load(Settings).broker)
    environment.setenv("WORKER_BROKER_URL", "amqps://broker.example/vhost")

    assert (cache.tls, cache.password_file) == ({"ssl_ca_certs": str(bundle)}, str(file))
    assert shared == cache
    assert (broker.tls, broker.password_file) == ({"ssl_ca_certs": "/own.pem"}, None)
    assert cast("dict[str, object]", broker_address(load(Settings).broker).ssl)["ca_certs"] == str(bundle)
