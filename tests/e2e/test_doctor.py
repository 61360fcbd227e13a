"""The doctor is green for a fleet that works, and red with the right sentence for each set-up that does not."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from sqlalchemy import make_url

from tests.constants import ANN
from tests.e2e.deployment import Deployment
from tests.e2e.terminal import COLUMNS, in_terminal
from tests.fail_over import FailOver, postgres_fail_over
from tests.waiting import wait_for
from worker import __version__, clock
from worker.cache import HeartbeatStore, RedisClient, connect
from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Registration, fault_named
from worker.devkit.stack import ValkeyServer
from worker.domain.heartbeat import Heartbeat, Role
from worker.vault import generate_key

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Fleet:
    """A deployment, and heartbeats of a beat and of a worker that serve it well."""

    deployment: Deployment
    redis: RedisClient
    standby: FailOver
    cluster: str
    cleanup: ExitStack

    def examine(self) -> tuple[int, dict[str, Any]]:
        """The doctor's exit code, and the problems and remedies that it names, by check."""
        done = self.deployment.cli("doctor", "--json")
        assert done.stderr == ""
        report = json.loads(done.stdout)
        assert report["ok"] == (done.returncode == 0)
        named: dict[str, Any] = {}
        for each in report["checks"]:
            sentence = f"{each['problem']}. {each['remedy']}" if each["problem"] else ""
            named.setdefault(f"{each['level']} {each['check']}", []).append(sentence)
        return done.returncode, named

    def set(self, **environment: str) -> None:
        self.deployment.environment.update(environment)

    def sql(self, statement: str, undo: str | None = None) -> None:
        """Run statements as the owner of the database, and others at the end of the test."""
        self.deployment.sql(statement)
        if undo:
            self.cleanup.callback(self.deployment.sql, undo)
            owner = self.deployment.environment["WORKER_DATABASE_URL"]
            self.cleanup.callback(self.set, WORKER_DATABASE_URL=owner)

    def configure_redis(self, name: str, value: str) -> None:
        before = self.redis.config_get(name)[name] or ""
        self.cleanup.callback(self.redis.config_set, name, before)
        self.redis.config_set(name, value)

    def beat(self, process: Heartbeat, **changes: Any) -> None:
        HeartbeatStore(self.redis).put(replace(process, **changes))

    @property
    def worker(self) -> Heartbeat:
        now = clock.utcnow()
        return Heartbeat(
            role=Role.WORKER,
            host="web-1",
            pid=11,
            version=__version__,
            started_at=now,
            at=now,
            key_ids=("k1",),
            queues=("ondemand", "sweep", "refresh"),
        )

    @property
    def scheduler(self) -> Heartbeat:
        return replace(self.worker, role=Role.BEAT, pid=12, key_ids=(), queues=())

    def remove(self, process: Heartbeat) -> None:
        HeartbeatStore(self.redis).remove(process)

    def url_of(self, setting: str, **changes: Any) -> str:
        url = make_url(self.deployment.environment[setting])
        return url.set(**changes).render_as_string(hide_password=False)


@pytest.fixture(scope="module", name="standby")
def _standby(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailOver]:
    with postgres_fail_over(tmp_path_factory.mktemp("standby")) as fail_over:
        yield fail_over


class _ClusterServer(ValkeyServer):
    def _command(self, port: int) -> list[str]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            bus = free.getsockname()[1]
        return [*super()._command(port), "--cluster-enabled", "yes", "--cluster-port", str(bus)]


@pytest.fixture(scope="module", name="cluster")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = _ClusterServer(tmp_path_factory.mktemp("cluster"), durable=False)
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    yield server.url
    server.stop()


@pytest.fixture(name="fleet")
def _fleet(deployment: Deployment, standby: FailOver, cluster: str) -> Iterator[Fleet]:
    deployment.environment.pop("WORKER_SWEEP_INTERVAL")
    client = connect(deployment.environment["WORKER_REDIS_URL"])
    with closing(client), ExitStack() as cleanup:
        fleet = Fleet(deployment, client, standby, cluster, cleanup)
        for process in (fleet.worker, fleet.scheduler):
            fleet.beat(process)
        HeartbeatStore(client).note_sweep()
        yield fleet


def test_a_fleet_that_works_is_green(deployment: Deployment) -> None:
    """Beat and worker are real. The commands leave no key and no row."""
    deployment.environment["WORKER_NEXT_CLIENT_SECRET"] = DEFAULT_CLIENT_SECRET
    deployment.add_due_accounts(ANN)
    processes = [deployment.worker(), deployment.celery("beat")]
    with deployment.services() as services:
        wait_for(lambda: len(services.heartbeats.live()) == 2, about="heartbeats", processes=processes)
        wait_for(lambda: services.heartbeats.since_sweep() is not None, about="a sweep", processes=processes)
        wait_for(deployment.all_refreshed, about="a refresh", processes=processes)
    with closing(connect(deployment.environment["WORKER_REDIS_URL"])) as client:
        before = set(client.keys())

        done = deployment.cli("doctor")

        left = set(client.keys()) - before
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "ok    settings",
        "ok    postgres",
        "ok    tables",
        "ok    writes",
        "ok    accounts",
        "ok    encryption keys",
        "ok    redis",
        "ok    app registration default",
        "ok    app registration default, next credential",
        "ok    clocks",
        "ok    beat",
        "ok    workers",
        "ok    keys of workers",
    ]
    assert not [key for key in left if b"doctor" in key]
    assert deployment.sql("SELECT email FROM mail_credentials") == [(ANN,)]


class Setup(NamedTuple):
    """A set-up that does not work, with the words that the doctor says about a check of it."""

    alter: Callable[[Fleet], object]
    check: str
    words: tuple[str, ...]
    also: tuple[str, ...]  # further checks that must fail


BROKEN: dict[str, Setup] = {}


def broken(
    check: str, *words: str, also: tuple[str, ...] = ()
) -> Callable[[Callable[[Fleet], object]], Callable[[Fleet], object]]:
    def register(alter: Callable[[Fleet], object]) -> Callable[[Fleet], object]:
        BROKEN[alter.__name__.replace("_", " ")] = Setup(alter, check, words, also)
        return alter

    return register


@broken("settings", "not a setting: WORKER_BATCHSIZE")
def a_misspelt_setting(fleet: Fleet) -> None:
    fleet.set(WORKER_BATCHSIZE="1")


@broken("postgres", "cannot be used: connection failed")
def postgres_down(fleet: Fleet) -> None:
    fleet.set(WORKER_DATABASE_URL="postgresql://app:secret@127.0.0.1:1/app")


@broken("postgres", "password authentication failed", "correct user and password in WORKER_DATABASE_URL")
def a_wrong_password_of_postgres(fleet: Fleet) -> None:
    fleet.set(WORKER_DATABASE_URL=fleet.url_of("WORKER_DATABASE_URL", password="wrong"))


@broken("postgres", "does not exist", "CREATE DATABASE nowhere OWNER app")
def no_database(fleet: Fleet) -> None:
    fleet.set(WORKER_DATABASE_URL=fleet.url_of("WORKER_DATABASE_URL", database="nowhere"))


@broken("postgres", "the server is a standby", "Lead WORKER_DATABASE_URL to the primary")
def a_hot_standby(fleet: Fleet) -> None:
    fleet.set(WORKER_DATABASE_URL=fleet.standby.replica)


@broken("postgres", "transactions of app are read-only", "ALTER DATABASE", "SET default_transaction_read_only = off")
def a_read_only_database(fleet: Fleet) -> None:
    name = make_url(fleet.deployment.environment["WORKER_DATABASE_URL"]).database
    reset = f"SET transaction_read_only = off; ALTER DATABASE {name} RESET default_transaction_read_only"
    fleet.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on", undo=reset)


@broken("tables", "migrations are missing", "Run: token-worker migrate")
def a_missing_migration(fleet: Fleet) -> None:
    [(version,)] = fleet.deployment.sql("SELECT version_num FROM alembic_version")
    fleet.sql(
        "UPDATE alembic_version SET version_num = '20261128_0000'",
        undo=f"UPDATE alembic_version SET version_num = '{version}'",
    )


@broken("privileges", "lacks UPDATE on mail_credentials", "GRANT UPDATE ON mail_credentials TO low")
def a_missing_grant(fleet: Fleet) -> None:
    fleet.sql("CREATE ROLE low LOGIN PASSWORD 'low'", undo="DROP OWNED BY low; DROP ROLE low")
    fleet.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO low")
    fleet.sql("REVOKE UPDATE ON mail_credentials FROM low")
    fleet.set(WORKER_DATABASE_URL=fleet.url_of("WORKER_DATABASE_URL", username="low", password="low"))


@broken("writes", "refused a statement", "too poor")
def a_trigger_in_the_way(fleet: Fleet) -> None:
    fleet.sql("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'too poor'; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON mail_credentials FOR EACH ROW EXECUTE FUNCTION refuse()
    """)


@broken("accounts", "1 belong to an app registration that is not configured", "token-worker list --json")
def accounts_of_an_unknown_registration(fleet: Fleet) -> None:
    line = json.dumps({"email": ANN, "refresh_token": "r", "client": "fabrikam"})
    imported = fleet.deployment.cli("import", "-", stdin=line, **fabrikam(fleet))
    assert imported.returncode == 0


@broken("encryption keys", "cannot be opened", "all of WORKER_ENCRYPTION_KEYS")
def a_lost_key(fleet: Fleet) -> None:
    fleet.deployment.add_due_accounts(ANN)
    fleet.set(WORKER_ENCRYPTION_KEYS=generate_key("k9"))
    fleet.beat(fleet.worker, key_ids=("k9",))


@broken("redis", "no server listens there", "See WORKER_REDIS_URL, which names 127.0.0.1:1")
def redis_down(fleet: Fleet) -> None:
    fleet.set(WORKER_REDIS_URL="redis://127.0.0.1:1/0")


@broken("redis", "refuses the user or the password of the URL", "See WORKER_REDIS_URL")
def a_wrong_password_of_redis(fleet: Fleet) -> None:
    fleet.set(WORKER_REDIS_URL=fleet.url_of("WORKER_REDIS_URL", password="wrong"))


@broken("redis", "it is a replica", "REPLICAOF NO ONE")
def a_replica_of_redis(fleet: Fleet) -> None:
    fleet.cleanup.callback(fleet.redis.replicaof, "NO", "ONE")
    fleet.redis.replicaof("127.0.0.1", 1)


@broken("redis", "cluster mode", "cluster-enabled no", also=("beat", "workers"))
def a_redis_cluster(fleet: Fleet) -> None:
    fleet.set(WORKER_REDIS_URL=fleet.cluster)


@broken("redis", "it is full: maxmemory is 1 MB", "CONFIG SET maxmemory")
def a_full_redis(fleet: Fleet) -> None:
    fleet.configure_redis("maxmemory", "1mb")


@broken("redis", "allkeys-lru deletes any key", "CONFIG SET maxmemory-policy noeviction")
def a_redis_that_evicts_the_outbox(fleet: Fleet) -> None:
    fleet.configure_redis("maxmemory-policy", "allkeys-lru")


@broken("redis", "cannot write", "lacks a right")
def a_user_who_may_not_write_to_redis(fleet: Fleet) -> None:
    fleet.set(WORKER_REDIS_URL=low_user(fleet, "-@write"))


@broken("redis", "cannot publish and subscribe", "lacks a right")
def a_user_who_may_not_publish(fleet: Fleet) -> None:
    fleet.set(WORKER_REDIS_URL=low_user(fleet, "-publish"))


@broken("redis", "cannot run scripts", "lacks a right")
def a_user_who_may_not_run_scripts(fleet: Fleet) -> None:
    fleet.set(WORKER_REDIS_URL=low_user(fleet, "-eval"))


@broken("broker", "cannot queue and take a message", "no server listens there", "See WORKER_BROKER_URL")
def a_broker_that_is_not_redis_and_down(fleet: Fleet) -> None:
    fleet.set(WORKER_BROKER_URL="amqp://guest:guest@127.0.0.1:1/")


@broken("broker", "it is a replica", "Lead WORKER_BROKER_URL to the primary")
def a_broker_that_is_a_replica(fleet: Fleet) -> None:
    server = ValkeyServer(Path(fleet.deployment.directory / "broker"), durable=False)
    fleet.cleanup.callback(server.stop)
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", 1)
    fleet.set(WORKER_BROKER_URL=server.url)


@broken(
    "app registration default", "Microsoft refuses WORKER_CLIENT_SECRET (AADSTS7000215)", "The client secret is wrong"
)
def a_wrong_secret(fleet: Fleet) -> None:
    fleet.set(WORKER_CLIENT_SECRET="wrong")


@broken("app registration default", "Microsoft refuses WORKER_CLIENT_SECRET (AADSTS7000222)")
def an_expired_secret(fleet: Fleet) -> None:
    fleet.deployment.emulator.add_fault(fault_named("7000222"))


@broken("app registration default", "Microsoft refuses the app registration (AADSTS7000112)")
def a_disabled_app(fleet: Fleet) -> None:
    fleet.deployment.emulator.add_fault(fault_named("7000112"))


@broken("app registration default", "Microsoft refuses the app registration (AADSTS700016)")
def an_unknown_app(fleet: Fleet) -> None:
    fleet.set(WORKER_CLIENT_ID=str(uuid4()))


@broken("app registration fabrikam, next credential", "refuses WORKER_CLIENTS__FABRIKAM__NEXT_CLIENT_SECRET")
def a_wrong_next_secret_of_another_registration(fleet: Fleet) -> None:
    fleet.set(**fabrikam(fleet), WORKER_CLIENTS__FABRIKAM__NEXT_CLIENT_SECRET="wrong")


@broken("app registration default", "cannot be used (tls)")
def an_authority_that_is_not_trusted(fleet: Fleet) -> None:
    del fleet.deployment.environment["WORKER_CA_BUNDLE"]


@broken("app registration default", "the certificate of WORKER_CLIENT_CERTIFICATE has ended on 20")
def a_certificate_that_has_ended(fleet: Fleet) -> None:
    set_certificate(fleet, clock.utcnow() - DAY)


@broken("app registration default", "refreshes meet misconfigured (AADSTS7000222), so its breaker is open")
def an_open_breaker(fleet: Fleet) -> None:
    fleet.sql("""
        INSERT INTO oauth_clients (name, updated_at, failure_kind, failure_code, failures, open_until)
        VALUES ('default', now(), 'misconfigured', 'AADSTS7000222', 3, now() + interval '1 min')
    """)


@broken("clocks", "the clock of worker web-1 is 11 min behind", "Synchronise it (NTP)")
def a_worker_with_a_slow_clock(fleet: Fleet) -> None:
    fleet.beat(fleet.worker, at=clock.utcnow() - timedelta(minutes=11))


@broken("clocks", "the clock of beat cron-1 is 2 min ahead")
def a_beat_with_a_fast_clock(fleet: Fleet) -> None:
    fleet.beat(fleet.scheduler, host="cron-1", at=clock.utcnow() + timedelta(minutes=2))


@broken("namespace", "Redis holds the keys of a fleet with another database", "Set WORKER_NAMESPACE")
def another_fleet_in_the_same_redis(fleet: Fleet) -> None:
    fleet.redis.set("token-worker:fleet", str(uuid4()))


@broken("beat", "no beat is alive", "Start: celery -A worker beat")
def no_beat(fleet: Fleet) -> None:
    fleet.remove(fleet.scheduler)


@broken("workers", "no worker is alive", "Start: celery -A worker worker")
def no_worker(fleet: Fleet) -> None:
    fleet.remove(fleet.worker)


@broken("workers", "no worker takes tasks from sweep, refresh", "celery -A worker worker -Q sweep,refresh")
def a_fleet_that_serves_on_demand_refreshes_only(fleet: Fleet) -> None:
    fleet.beat(fleet.worker, queues=("ondemand",))


@broken("keys of workers", "worker web-1 11 lacks k2", "restart it")
def a_worker_without_the_newest_key(fleet: Fleet) -> None:
    fleet.set(WORKER_ENCRYPTION_KEYS=f"{generate_key('k2')},{fleet.deployment.environment['WORKER_ENCRYPTION_KEYS']}")


@broken("keys of workers", "worker web-1 11 has k0, which this command's settings lack")
def a_key_that_only_a_worker_has(fleet: Fleet) -> None:
    fleet.beat(fleet.worker, key_ids=("k0", "k1"))


@broken("sweeps", "no sweep has ended within a day", "logs of beat and workers")
def no_sweep(fleet: Fleet) -> None:
    fleet.redis.delete("token-worker:swept")


@broken("sweeps", "the last sweep ended", "logs of beat and workers")
def no_sweep_for_an_hour(fleet: Fleet) -> None:
    fleet.redis.pexpire("token-worker:swept", timedelta(hours=23))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_setup_is_red(fleet: Fleet, name: str) -> None:
    """One check fails with the right sentence, and no other fails for the same cause."""
    setup = BROKEN[name]
    setup.alter(fleet)

    status, named = fleet.examine()

    assert status == 1
    failures = [f"failed {check}" for check in (setup.check, *setup.also)]
    assert [level for level in named if level.startswith("failed ")] == failures
    [sentence] = named[failures[0]]
    for words in setup.words:
        assert words in sentence, sentence


WEAK: dict[str, tuple[Callable[[Fleet], object], str, str]] = {
    "without persistence": (
        lambda fleet: fleet.configure_redis("appendonly", "no"),
        "redis",
        "a restart loses the outbox and the queues",
    ),
    "almost full": (
        lambda fleet: fleet.configure_redis("maxmemory", str(int(fleet.redis.info()["used_memory"] * 1.05))),
        "redis",
        "% of maxmemory are in use",
    ),
    "another version": (
        lambda fleet: fleet.beat(fleet.worker, version="0.1"),
        "versions",
        f"worker web-1 11 runs 0.1, and this command is {__version__}",
    ),
    "a certificate that ends soon": (
        lambda fleet: set_certificate(fleet, clock.utcnow() + 20 * DAY),
        "app registration default",
        "the certificate of WORKER_CLIENT_CERTIFICATE ends on 20",
    ),
    "a user who may not see the state": (
        lambda fleet: fleet.set(WORKER_REDIS_URL=low_user(fleet, "-info")),
        "redis",
        "may not run INFO",
    ),
}


@pytest.mark.parametrize("name", WEAK)
def test_a_weakness_is_a_warning(fleet: Fleet, name: str) -> None:
    alter, check, words = WEAK[name]
    alter(fleet)

    status, named = fleet.examine()

    assert (status, [level for level in named if not level.startswith("ok ")]) == (0, [f"warning {check}"])
    assert words in named[f"warning {check}"][0]


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru", "volatile-ttl"])
def test_a_redis_that_evicts_copies_only_is_green(fleet: Fleet, policy: str) -> None:
    """Queues and outbox have no time to live, so these policies keep them and make room for them."""
    fleet.configure_redis("maxmemory-policy", policy)

    status, named = fleet.examine()

    assert (status, named["ok redis"]) == (0, [""])


def test_a_server_without_the_right_to_be_configured_is_green(fleet: Fleet) -> None:
    """Managed servers refuse CONFIG."""
    fleet.set(WORKER_REDIS_URL=low_user(fleet, "-config"))

    assert fleet.examine()[0] == 0


def test_all_findings_fit_a_terminal(fleet: Fleet) -> None:
    a_redis_that_evicts_the_outbox(fleet)
    a_wrong_secret(fleet)

    status, output = in_terminal(fleet.deployment, "doctor")

    assert status == 1
    assert max(map(len, output.splitlines())) <= COLUMNS, output
    assert "FAIL  redis: when it is full, allkeys-lru deletes any key" in output
    assert "ok    workers" in output


def fabrikam(fleet: Fleet) -> dict[str, str]:
    """The settings of another app registration."""
    return {
        "WORKER_CLIENTS__FABRIKAM__CLIENT_ID": DEFAULT_CLIENT_ID,
        "WORKER_CLIENTS__FABRIKAM__CLIENT_SECRET": DEFAULT_CLIENT_SECRET,
        "WORKER_CLIENTS__FABRIKAM__AUTHORITY": fleet.deployment.environment["WORKER_AUTHORITY"],
    }


def low_user(fleet: Fleet, *rules: str) -> str:
    """The URL of a user of Redis with all rights but these."""
    fleet.cleanup.callback(fleet.redis.execute_command, "ACL", "DELUSER", "low")
    fleet.redis.execute_command("ACL", "SETUSER", "low", "on", ">low", "~*", "&*", "+@all", *rules)  # type: ignore[no-untyped-call]
    return fleet.url_of("WORKER_REDIS_URL", username="low", password="low")


def set_certificate(fleet: Fleet, ends_at: datetime) -> None:
    """Use a certificate instead of the secret, which the emulator accepts whenever it ends."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "worker")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    certificate = (
        builder.serial_number(1)
        .not_valid_before(ends_at - 90 * DAY)
        .not_valid_after(ends_at)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    pem = fleet.deployment.directory / "client.pem"
    pem.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain) + certificate)
    fleet.deployment.emulator.registrations.register(
        Registration(DEFAULT_CLIENT_ID, secrets=(), certificates=(certificate,), public=False)
    )
    del fleet.deployment.environment["WORKER_CLIENT_SECRET"]
    fleet.set(WORKER_CLIENT_CERTIFICATE=str(pem))
