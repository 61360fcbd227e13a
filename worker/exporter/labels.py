"""The values of labels. Each comes from a short list or is ``other``: no address, id or tenant becomes a label."""

import re

from worker.domain.codes import explain
from worker.domain.outcome import Kind
from worker.service.refresh.results import Trigger

OTHER = "other"
_OK = "ok"  # the code of an event without a failure
_OUTCOMES, _TRIGGERS = frozenset(Kind), frozenset(Trigger)
_CLIENT = re.compile(r"[a-z0-9_.-]{1,64}")
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def client(name: str) -> str:
    """The name of an app registration."""
    return name if _CLIENT.fullmatch(name) else OTHER


def code(name: str) -> str:
    """A code of the table of codes, as it stands there."""
    row = explain(name)
    return _OK if name == _OK else row.code if row else OTHER


def outcome(name: str) -> str:
    return name if name in _OUTCOMES else OTHER


def trigger(name: str) -> str:
    return name if name in _TRIGGERS else OTHER


def host(name: str) -> str:
    """The name of a machine or container."""
    return name if _HOST.fullmatch(name) else OTHER
