"""A missing extra raises one sentence with the command that installs it."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("worker.mail.imapclient", "imapclient", "imapclient"),
        ("worker.mail.aio", "aioimaplib", "aio"),
        ("worker.mail.aio", "aiosmtplib", "aio"),
    ],
)
def test_a_missing_extra_is_named(module: str, missing: str, extra: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; import worker.mail; import {module}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last == f"ImportError: {missing} is not installed: pip install 'token-refresh-worker[{extra}]'"


def test_the_standard_library_is_enough() -> None:
    """worker.mail itself imports neither an optional library nor a module that needs settings."""
    program = "import sys, worker.mail; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"imapclient", "aioimaplib", "aiosmtplib", "redis", "sqlalchemy", "worker.settings"} & set(loaded)
