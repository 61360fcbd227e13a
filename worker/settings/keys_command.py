"""Keys from a command, such as one that unwraps them with a key management service."""

import shlex
import subprocess
from functools import cache
from typing import Any

from worker.domain.errors import ConfigurationError
from worker.settings.mistakes import PREFIX

_KEYS, _COMMAND = "encryption_keys", "encryption_keys_command"
_TIMEOUT = 30  # seconds


def with_keys(values: dict[str, Any]) -> dict[str, Any]:
    """The values with the keys that the command prints, if there is a command. Raises ConfigurationError."""
    command = values.get(_COMMAND)
    if not command:
        return values
    if values.get(_KEYS):
        msg = f"{_variable(_KEYS)} and {_variable(_COMMAND)} are both set; set one of them"
        raise ConfigurationError(msg)
    return {**values, _KEYS: _printed_by(str(command))}


@cache  # once in a process and the children that it forks
def _printed_by(command: str) -> str:
    """The output is never quoted, because it may be a part of a key."""
    try:
        arguments = shlex.split(command)
        done = subprocess.run(arguments, stdout=subprocess.PIPE, timeout=_TIMEOUT, check=True)  # noqa: S603 - its purpose
        keys = done.stdout.decode("ascii").strip()
    except subprocess.TimeoutExpired:
        raise _failed(f"has not ended within {_TIMEOUT} seconds") from None
    except subprocess.CalledProcessError as error:
        raise _failed(f"has failed with exit code {error.returncode}; run it by hand") from None
    except OSError as error:
        raise _failed(f"cannot be run: {error.strerror}") from None
    except ValueError:  # quotes that do not match, or bytes that are no text
        raise _failed("must be a command line whose output is id:base64 keys") from None
    if not keys:
        raise _failed("has printed nothing")
    return keys


def _failed(problem: str) -> ConfigurationError:
    return ConfigurationError(f"{_variable(_COMMAND)} {problem}")


def _variable(name: str) -> str:
    return f"{PREFIX}{name}".upper()
