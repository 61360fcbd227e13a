"""A child of a consumer's process that ends as any program does leaves the parent's connections be."""

import json
import sys

import pytest

from tests.e2e.deployment import Deployment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for connections in /proc")

_SCRIPT = """
import json, os, socket, sys, time
from urllib.parse import urlsplit
from worker.client import TokenClient

client = TokenClient.from_env()
client.get("ann@contoso.com")
if (child := os.fork()) == 0:
    sys.exit()  # and not os._exit: all that was inherited is finalized
assert os.waitpid(child, 0)[1] == 0


def peer(descriptor):
    try:
        with socket.socket(fileno=os.dup(descriptor)) as shared:
            return shared.getpeername()[1]
    except OSError:
        return None


def quiet(descriptor):
    with socket.socket(fileno=os.dup(descriptor)) as shared:
        try:
            shared.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        return False  # the server has said goodbye


time.sleep(0.5)
port = urlsplit(os.environ["WORKER_AUTHORITY"]).port
print(json.dumps([quiet(int(name)) for name in os.listdir("/proc/self/fd") if peer(int(name)) == port]))
client.close()
"""


def test_a_child_that_ends_says_no_goodbye_for_its_parent(deployment: Deployment) -> None:
    """TLS has one, which the child could send as well: the answer to a question on its way would be lost."""
    deployment.add_due_accounts("ann@contoso.com")

    done = deployment.run([sys.executable, "-c", _SCRIPT])

    assert done.returncode == 0, done.stderr
    connections = json.loads(done.stdout)
    assert connections, "there is one to be harmed"
    assert all(connections)
