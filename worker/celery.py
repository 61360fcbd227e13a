"""The Celery application: ``celery -A worker worker``, ``celery -A worker beat``, ``celery -A worker flower``.

The import of this module reads no setting and opens no connection. Each process builds its services after the fork.
"""

import gc
import importlib
import importlib.util
import os
import secrets
import signal
import sys
from typing import TYPE_CHECKING, Any

import celery.signals
import click
import structlog
from celery import Celery
from celery.schedules import crontab
from kombu.exceptions import ChannelError
from redis.credentials import CredentialProvider

from worker import clock
from worker.broker import ON_DEMAND, REFRESH, SWEEP, broker_address, leave_read_only_servers, queue, repair
from worker.broker.control import restrict_commands
from worker.broker.messages import check_deliveries
from worker.broker.routes import route_directly
from worker.cache import server_time
from worker.domain.clocks import TOLERANCE
from worker.domain.errors import ConfigurationError, Unavailable, WorkerError
from worker.log_limit import LogLimit
from worker.observability import logging
from worker.redis_failures import reason
from worker.settings import BrokerSettings, Settings, SettingsT, WatchedSettings, load, secret_file
from worker.tasks import EXPECTED

if TYPE_CHECKING:
    from worker.bootstrap import Services

_QUEUE_LIMIT = 64  # batches; a batch leases its accounts when it starts, so more of them would only wait
_TIME_LIMIT = 300  # seconds until Celery kills a task; a batch ends with its lease, so only a bug takes as long
_EXIT_DELAY = 0.2  # seconds
_CONFIGURATION_ERROR = 4  # exit code, the same as of token-worker


_log = structlog.get_logger(__name__)
_failures = LogLimit()


class Worker(Celery):
    """The application, and the services of the process it runs in."""

    amqp_cls = "worker.broker.amqp:Connections"

    def __init__(self) -> None:
        super().__init__("worker", include=["worker.tasks"])
        self.add_defaults(_configuration)
        self._services: tuple[int, Services] | None = None
        self._settings: WatchedSettings | None = None
        self._is_child = self._busy = self._ending = False

    @property
    def services(self) -> "Services":
        """The services of this process, built at first use, because connections must not be shared over a fork."""
        if self._services is None or self._services[0] != os.getpid():
            return self.build_services()
        return self._services[1]

    @services.setter
    def services(self, services: "Services") -> None:
        self._services = os.getpid(), services

    @property
    def credential_provider(self) -> CredentialProvider | None:
        """The password of the broker, if a file has it."""
        return broker_address(_load_or_exit(BrokerSettings).broker).credential_provider

    def build_services(self) -> "Services":
        from worker.bootstrap import bootstrap  # noqa: PLC0415 - beat and Flower need no services

        try:
            self._settings = WatchedSettings()
        except ConfigurationError as error:
            raise _exit(error) from None
        self.services = bootstrap(self._settings.value)
        return self.services

    def close_services(self) -> None:
        if self._services is not None and self._services[0] == os.getpid():
            self._services[1].close()
        self._services = None

    def begin_child(self) -> None:
        """Called in each child of the pool, after the fork."""
        self._is_child = True
        self.build_services()

    def begin_task(self) -> None:
        self._busy = True
        if self._is_child:  # here, because the pool sets its own handler after `worker_process_init`
            for signum in (signal.SIGTERM, signal.SIGALRM):
                signal.signal(signum, self.end_gracefully)
            self._follow_settings()

    def _follow_settings(self) -> None:
        """Take up secrets, keys and certificates that have changed on disk. Keep the old ones if these are no good."""
        assert self._settings is not None
        try:
            if not self._settings.reload():
                return
            from worker.bootstrap import bootstrap  # noqa: PLC0415 - beat and Flower need no services

            renewed = bootstrap(self._settings.value)
            self.close_services()
            self.services = renewed
        except ConfigurationError as error:
            _log.error("Changed settings cannot be used; the worker keeps the old ones", reason=str(error))
        else:
            _log.info("Changed settings taken up")

    def end_task(self) -> None:
        self._busy = False
        if self._ending:
            # Exit a moment later, once the pool has received the result; otherwise it reports a crash of the task.
            signal.setitimer(signal.ITIMER_REAL, _EXIT_DELAY)

    def end_gracefully(self, *_: object) -> None:
        """Send no more requests, store the results of those in flight, then exit.

        The handler of SIGTERM, which a service manager sends to all processes at once and ``revoke(terminate=True)`` to
        one. The default handler would kill a child between Microsoft's response and the commit.
        """
        self._ending = True
        if not self._busy:
            raise SystemExit(0)
        self.services.refresher.stop()

    def drop_queued_sweeps(self) -> None:
        """Remove the sweeps that were sent before this one started, which does their work."""
        with self.connection_or_acquire() as connection:
            channel: Any = connection.default_channel
            channel.queue_purge(SWEEP)

    def queue_room(self) -> int:
        """How many more batches may be queued."""
        with self.connection_or_acquire() as connection:
            channel: Any = connection.default_channel
            try:
                queued = channel.queue_declare(REFRESH, passive=True).message_count
            except ChannelError:  # an empty queue does not exist in Redis
                queued = 0
        return _QUEUE_LIMIT - int(queued)


def _configuration() -> dict[str, Any]:
    settings = _load_or_exit(BrokerSettings)
    address = broker_address(settings.broker, prefix=settings.key_prefix)
    return {
        "broker_url": address.url,
        # Set as well, because the variable CELERY_BROKER_URL, perhaps of another application in the same environment,
        # overrides broker_url.
        "broker_read_url": address.url,
        "broker_write_url": address.url,
        "broker_use_ssl": address.ssl,
        "beat_schedule": _schedule(settings.sweep_interval),
        "timezone": "UTC",
        # A prefetch of one, because messages that were fetched before would be handled before those of another queue.
        "task_queues": [queue(name) for name in (ON_DEMAND, SWEEP, REFRESH)],
        "task_default_queue": REFRESH,
        "task_routes": {"worker.refresh_account": {"queue": ON_DEMAND}, "worker.sweep": {"queue": SWEEP}},
        "worker_prefetch_multiplier": 1,
        # Early acknowledgement is safe, because a batch leases its accounts when it starts. A lost message costs one
        # tick, a repeated one finds nothing due, and a batch that kills its child is not delivered again.
        "task_acks_late": False,
        "task_ignore_result": True,  # results are in Postgres; a result backend would cost more than the task
        "task_publish_retry": False,  # the next sweep is the retry, and a publish that waits for Redis would delay it
        "task_time_limit": _TIME_LIMIT,
        # No soft limit, which would raise between Microsoft's response and the commit.
        "broker_transport_options": {
            **address.transport_options,
            "queue_order_strategy": "priority",
            "ack_emulation": False,  # see worker/broker/routes.py; a message that a killed worker has fetched is lost
            "socket_timeout": 5,  # seconds; BRPOP waits one, TCP many minutes for a dead network
            "socket_connect_timeout": 5,
        },
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # the worker exits after 100 by default
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # a batch needs no broker to finish
        "worker_send_task_events": True,  # for Flower; there are few, because a task is a batch
        "worker_consumer": "worker.broker.consumer:PatientConsumer",
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "beat_max_loop_interval": 5,  # seconds until beat notices that Redis is back
        "beat_scheduler": "worker.liveness.scheduler:Scheduler",
    }


def _schedule(sweep_interval: float) -> dict[str, dict[str, Any]]:
    return {
        "sweep": {"task": "worker.sweep", "schedule": sweep_interval},
        "prune-events": {"task": "worker.prune_events", "schedule": crontab(minute="17", hour="*/6")},
    }


def _load_or_exit(kind: type[SettingsT]) -> SettingsT:
    """Load the settings. A mistake ends the process with a sentence and exit code 4, instead of Celery's traceback."""
    try:
        return load(kind)
    except ConfigurationError as error:
        raise _exit(error) from None


def _exit(error: WorkerError) -> SystemExit:
    click.echo(f"Configuration error: {error}", err=True)
    return SystemExit(_CONFIGURATION_ERROR)


@celery.signals.setup_logging.connect
def _configure_logging(**_: object) -> None:
    settings = _load_or_exit(BrokerSettings)
    logging.configure(level=settings.log_level, log_format=settings.log_format)


@celery.signals.celeryd_init.connect
def _check_settings(**_: object) -> None:
    """Called before the first fork. A worker that cannot refresh must not start."""
    settings = _load_or_exit(Settings)
    if not settings.remote_control:
        restrict_commands()
    bootstrap = importlib.import_module("worker.bootstrap")  # once for all children
    try:
        bootstrap.check_stores(settings)
    except WorkerError as error:
        raise _exit(error) from None
    gc.freeze()  # a garbage collection in a child would write to the shared pages, and so copy them


@celery.signals.worker_ready.connect
def _warn_of_clock_skew(sender: Any, **_: object) -> None:
    """Called once per worker. Its clock decides which accounts are due and which leases have ended."""
    try:
        skew = clock.utcnow() - server_time(_load_or_exit(Settings).redis_url.get_secret_value())
    except Unavailable:
        return
    if abs(skew) > TOLERANCE:
        _log.warning("Clock differs from that of Redis", host=sender.hostname, seconds=round(skew.total_seconds()))


@celery.signals.worker_process_init.connect
def _build_services(**_: object) -> None:
    app.begin_child()


@celery.signals.worker_process_shutdown.connect
@celery.signals.worker_shutdown.connect
def _close_services(**_: object) -> None:
    app.close_services()


@celery.signals.task_prerun.connect
def _bind_task(task_id: str, task: Any, **_: object) -> None:
    app.begin_task()
    logging.set_context(task=task.name, task_id=task_id)


@celery.signals.task_failure.connect
def _log_failure(sender: Any, exception: Exception, **_: object) -> None:
    """In place of the traceback of a store that is away, one line a minute with the reason."""
    if isinstance(exception, EXPECTED) and _failures.allows(type(exception).__name__):
        words = str(exception) if isinstance(exception, WorkerError) else reason(exception)
        _log.error("Task cannot be done; the next one tries again", task=sender.name, reason=words)


@celery.signals.task_postrun.connect
def _unbind_task(**_: object) -> None:
    logging.set_context()
    app.end_task()


def _secure_flower() -> None:
    """Let Flower listen on loopback and demand a password, unless its options or FLOWER_* variables say otherwise.

    By default Flower listens on every address and demands no password. The password may also be a file
    FLOWER_BASIC_AUTH in WORKER_SECRETS_DIR.
    """
    if "://" in os.environ.get("FLOWER_PORT", ""):  # of a Kubernetes Service named `flower`; Flower wants a number
        del os.environ["FLOWER_PORT"]
    os.environ.setdefault("FLOWER_ADDRESS", "127.0.0.1")
    try:
        if login := secret_file("FLOWER_BASIC_AUTH"):
            os.environ["FLOWER_BASIC_AUTH"] = login
    except ConfigurationError as error:
        raise _exit(error) from None
    if any(name.startswith(("FLOWER_BASIC_AUTH", "FLOWER_AUTH", "FLOWER_OAUTH2")) for name in os.environ):
        return
    if any(argument.startswith(("--basic-auth", "--basic_auth", "--auth", "--conf")) for argument in sys.argv):
        return
    password = secrets.token_urlsafe(12)
    os.environ["FLOWER_BASIC_AUTH"] = f"flower:{password}"
    click.echo(
        f"Flower: sign in as flower, password {password} (set FLOWER_BASIC_AUTH=user:password to choose)", err=True
    )


repair()
leave_read_only_servers()
check_deliveries()
route_directly()
app = Worker()
app.steps["consumer"].add("worker.liveness.consumer:LivenessStep")
if "flower" in sys.argv[1:] and importlib.util.find_spec("flower"):
    _secure_flower()
