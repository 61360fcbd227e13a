"""Findings of the doctor."""

import enum
from dataclasses import dataclass


class Level(enum.StrEnum):
    """Whether a finding needs an operator."""

    OK = "ok"
    WARNING = "warning"  #: all works, but a fault would cost more than it should
    FAILED = "failed"  #: something does not work


@dataclass(frozen=True, slots=True)
class Finding:
    """The state of one thing. ``problem`` and ``remedy`` are sentences for the operator, empty if it is ok."""

    subject: str
    level: Level = Level.OK
    problem: str = ""
    remedy: str = ""  # begins with the command or statement where there is one


def ok(subject: str) -> Finding:
    return Finding(subject)


def warning(subject: str, problem: str, remedy: str) -> Finding:
    return Finding(subject, Level.WARNING, problem, remedy)


def failed(subject: str, problem: str, remedy: str) -> Finding:
    return Finding(subject, Level.FAILED, problem, remedy)
