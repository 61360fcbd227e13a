"""The manual page, which is written from the commands."""

import re
import subprocess
from shutil import which

import pytest

from bench.man import page
from worker.cli import cli
from worker.cli.commands import all_commands


def test_each_command_is_in_the_manual() -> None:
    """No line begins with a word that roff would take for a request."""
    text = page()

    for name, _ in all_commands(cli):
        quoted = re.escape(name.replace("-", r"\-"))
        assert re.search(rf"^\.SS\n{quoted} ", text, re.MULTILINE), name
    requests = {line.split()[0] for line in text.splitlines() if line.startswith((".", "'"))}
    assert requests == {".TH", ".SH", ".SS", ".B", ".PP", ".TP", ".nf", ".fi"}
    assert "\b" not in text


@pytest.mark.skipif(which("groff") is None, reason="groff is not installed")
def test_groff_has_no_complaint() -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z"], input=page(), capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
