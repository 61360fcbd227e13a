"""A real Dovecot below one directory, on loopback: IMAP, POP and submission, each with XOAUTH2 over TLS.

It lets the emulator check each token, and relays submitted messages to another port.
"""

import grp
import os
import pwd
import shutil
import socket
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET
from worker.devkit.stack.privilege import Privilege, hand_over, reduced
from worker.devkit.stack.process import Process, ticks
from worker.domain.account import MailServers

_PROGRAM, _ADMIN = "/usr/sbin/dovecot", "/usr/bin/doveadm"
_START = 60.0  # seconds
_ATTEMPTS = 3  # another process may take a port between the look and the bind

_OAUTH2 = """\
introspection_url = https://{client}@{emulator}/common/oauth2/v2.0/introspect
introspection_mode = post
username_attribute = username
active_attribute = active
active_value = true
tls_ca_cert_file = {directory}/emulator-ca.pem
timeout_msecs = 30000
"""

# One user owns all of it and nothing is chrooted: that is how it runs without root. Failures are not delayed.
_CONFIGURATION = """\
base_dir = {directory}/run
state_dir = {directory}/state
log_path = /dev/stderr
listen = 127.0.0.1
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = 1
protocols = imap pop3 submission
ssl = required
ssl_cert = <{directory}/server.pem
ssl_key = <{directory}/server.pem
ssl_dh =
auth_mechanisms = xoauth2
auth_failure_delay = 0
hostname = localhost
submission_relay_host = 127.0.0.1
submission_relay_port = {relay}
mail_location = maildir:~/Maildir
namespace inbox {{
  inbox = yes
}}
passdb {{
  driver = oauth2
  mechanisms = xoauth2
  args = {directory}/oauth2.conf
}}
userdb {{
  driver = static
  args = uid={user} gid={group} home={directory}/mail/%u
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    port = {imap}
    ssl = yes
  }}
}}
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = 0
  }}
  inet_listener pop3s {{
    port = {pop}
    ssl = yes
  }}
}}
service submission-login {{
  chroot =
  inet_listener submission {{
    port = {smtp}
  }}
  inet_listener submissions {{
    port = 0
  }}
}}
"""


def installed() -> bool:
    return all(Path("/usr/lib/dovecot", part).exists() for part in ("imap", "pop3", "submission"))


@dataclass(slots=True)
class Dovecot:
    """All its files are below `directory`."""

    directory: Path
    emulator: str  # host:port
    emulator_ca: Path
    relay: int
    servers: MailServers = field(default_factory=MailServers)
    _process: Process | None = None
    _privilege: Privilege = field(default_factory=Privilege)

    @property
    def ca_bundle(self) -> Path:
        return self.directory / "ca.pem"

    def start(self) -> None:
        """Raises StackError if root cannot drop its privileges."""
        self._privilege = reduced(self.directory)
        self._write_certificates()
        output = ""
        for _ in range(_ATTEMPTS):
            self._configure()
            self._process = Process(
                [*self._privilege.prefix, _PROGRAM, "-F", "-c", str(self._configuration)],
                log=self.directory / "dovecot.log",
            )
            if self._answers(self._process):
                return
            output = self._process.output()
            self._process.stop()
        raise AssertionError(f"Dovecot did not start: {output[-2000:]}")

    def stop(self) -> None:
        if self._process:
            self._process.stop()

    def kick(self, user: str) -> None:
        """End the user's sessions, as Exchange does when their token expires."""
        command = [*self._privilege.prefix, _ADMIN, "-c", str(self._configuration), "kick", user]
        subprocess.run(command, check=True, capture_output=True)

    @property
    def _configuration(self) -> Path:
        return self.directory / "dovecot.conf"

    def _write_certificates(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_bundle)
        server = authority.issue_cert("localhost")
        server.private_key_and_cert_chain_pem.write_to_path(self.directory / "server.pem")
        shutil.copyfile(self.emulator_ca, self.directory / "emulator-ca.pem")

    def _configure(self) -> None:
        imap, pop, smtp = free_ports(3)
        self.servers = MailServers(
            imap_host="localhost",
            imap_port=imap,
            pop_host="localhost",
            pop_port=pop,
            smtp_host="localhost",
            smtp_port=smtp,
        )
        user, group = _owner(self._privilege)
        values = {"directory": self.directory, "user": user, "group": group, "relay": self.relay}
        self._configuration.write_text(_CONFIGURATION.format(**values, imap=imap, pop=pop, smtp=smtp))
        client = f"{DEFAULT_CLIENT_ID}:{DEFAULT_CLIENT_SECRET}"
        oauth2 = _OAUTH2.format(client=client, emulator=self.emulator, directory=self.directory)
        (self.directory / "oauth2.conf").write_text(oauth2)
        if self._privilege.stranger:
            hand_over(self.directory)

    def _answers(self, process: Process) -> bool:
        ports = (self.servers.imap_port, self.servers.pop_port, self.servers.smtp_port)
        for _ in ticks(_START):
            if not process.alive():
                return False
            if all(map(_listening, ports)):
                return True
        return False


def _owner(privilege: Privilege) -> tuple[str, str]:
    """The user and the group that Dovecot runs as."""
    uid, gid = (65534, 65534) if privilege.prefix else (os.geteuid(), os.getegid())
    return pwd.getpwuid(uid).pw_name, grp.getgrgid(gid).gr_name


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        listeners = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
