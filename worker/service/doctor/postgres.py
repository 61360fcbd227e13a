"""Examines Postgres, its tables, and what they hold."""

from collections.abc import Callable, Iterator
from datetime import datetime

from worker.db import inspection, schema
from worker.db.inspection import OLDEST_VERSION, PostgresServer
from worker.db.remedies import grant
from worker.db.session import Database
from worker.domain.errors import WorkerError
from worker.domain.finding import Finding, failed, ok, warning
from worker.service.accounts.events import Ledger
from worker.service.accounts.key_rotation import KeyRotation


class PostgresArea:
    """Goes as far as the server lets it: without a connection there is one finding, and not one for each table."""

    name = "postgres"

    def __init__(
        self, *, database: Database, ledger: Ledger, key_rotation: KeyRotation, utcnow: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._key_rotation = key_rotation
        self._utcnow = utcnow

    def examine(self) -> Iterator[Finding]:
        with self._database.begin() as connection:
            server = inspection.server(connection)
        if problem := _unusable(server):
            yield problem
            return
        hosts = self._database.unverified_hosts
        yield warning(self.name, _UNVERIFIED.format(", ".join(hosts)), _VERIFY) if hosts else ok(self.name)
        missing = self._missing_migrations()
        yield missing or ok("tables")
        if missing:
            return
        rights = list(self._missing_rights(server.role))
        yield from rights or [self._try_writes()]
        if not any("SELECT" in finding.remedy for finding in rights):
            yield self._unconfigured()
            yield self._unreadable()

    def _missing_migrations(self) -> Finding | None:
        with self._database.begin() as connection:
            missing = schema.pending(connection)
        if not missing:
            return None
        return failed("tables", f"migrations are missing ({', '.join(missing)})", "Run: token-worker migrate")

    def _missing_rights(self, role: str) -> Iterator[Finding]:
        with self._database.begin() as connection:
            missing = inspection.missing_privileges(connection)
        for table, privileges in missing.items():
            listed = ", ".join(privileges)
            statement = grant(listed, "table", table, role).replace("ON TABLE ", "ON ")
            yield failed("privileges", f"{role} lacks {listed} on {table}", f"Run as its owner: {statement}")

    def _try_writes(self) -> Finding:
        try:
            with self._database.begin() as connection:
                inspection.try_writes(connection, now=self._utcnow())
                connection.rollback()
        except WorkerError as error:
            return failed("writes", str(error), "")
        return ok("writes")

    def _unconfigured(self) -> Finding:
        strangers = self._ledger.summary()["unconfigured"]
        if not strangers:
            return ok("accounts")
        problem = f"{strangers} belong to an app registration that is not configured"
        return failed("accounts", problem, "Set WORKER_CLIENTS__NAME__CLIENT_ID; see: token-worker list --json")

    def _unreadable(self) -> Finding:
        try:
            self._key_rotation.check()
        except WorkerError as error:
            return failed("encryption keys", str(error), "Give each process all of WORKER_ENCRYPTION_KEYS")
        return ok("encryption keys")


_UNVERIFIED = "the certificate of {} is not verified"
_VERIFY = "Add ?sslmode=verify-full&sslrootcert=PATH (or =system) to WORKER_DATABASE_URL"


def _unusable(server: PostgresServer) -> Finding | None:
    if server.version < OLDEST_VERSION:
        problem = f"the server is Postgres {server.version}, and {OLDEST_VERSION} is the oldest that works"
        return failed(PostgresArea.name, problem, "Upgrade it")
    if server.is_standby:
        problem = "the server is a standby, which takes no writes"
        return failed(PostgresArea.name, problem, "Lead WORKER_DATABASE_URL to the primary, or promote this server")
    if server.is_read_only:
        problem = f"transactions of {server.role} are read-only in database {server.database}"
        remedy = (
            f"Run: ALTER DATABASE {server.database} SET default_transaction_read_only = off; or likewise ALTER ROLE"
        )
        return failed(PostgresArea.name, problem, remedy)
    return None
