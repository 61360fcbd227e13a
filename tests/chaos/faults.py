"""Everything that is done to the fleet, how often, and what a consumer may be told meanwhile."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos import microsoft_faults as microsoft
from tests.chaos import process_faults as processes
from tests.chaos import store_faults as stores
from tests.chaos.fleet import Fleet

#: 0 is the short form.
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "0"))

_MICROSOFT_REFUSES = frozenset({"backing_off"})
_LEASED_TO_THE_DEAD = frozenset({"unavailable"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """``per_round`` strikes of each round of the long form, at least one; ``tolerates`` lists the codes of errors that
    consumers may get."""

    name: str
    strike: Callable[[Fleet], int]
    per_round: float = 1
    short: bool = False
    strict: bool = True
    tolerates: frozenset[str] = frozenset()

    @property
    def strikes(self) -> int:
        return max(1, round(self.per_round * ROUNDS)) if ROUNDS else int(self.short)


FAULTS = [
    Fault(
        name="worker child killed -9",
        strike=processes.child_killed,
        per_round=2,
        short=True,
        tolerates=_LEASED_TO_THE_DEAD,
    ),
    Fault(name="worker parent killed -9", strike=processes.parent_killed, tolerates=_LEASED_TO_THE_DEAD),
    Fault(
        name="killed -9 between answer and commit (not strict)",
        strike=processes.child_killed_before_the_commit,
        strict=False,
        tolerates=_LEASED_TO_THE_DEAD,
    ),
    Fault(
        name="the same, left to the lease (not strict)",
        strike=processes.child_killed_and_left_to_the_lease,
        per_round=0,
        strict=False,
        tolerates=_LEASED_TO_THE_DEAD,
    ),
    Fault(name="SIGTERM to the worker mid-batch", strike=processes.worker_told_to_end),
    Fault(name="SIGTERM to all its processes mid-batch", strike=processes.service_told_to_end, short=True),
    Fault(name="two beats", strike=processes.two_beats, per_round=0.4),
    Fault(
        name="beat killed for longer than a token lives",
        strike=processes.beat_killed_for_longer_than_a_token_lives,
        per_round=0,
    ),
    Fault(name="Redis flushed", strike=stores.redis_flushed, per_round=2, short=True),
    Fault(name="Redis killed", strike=stores.redis_killed, per_round=2, short=True),
    Fault(name="Redis paused", strike=stores.redis_paused),
    Fault(name="Redis restarted empty", strike=stores.redis_restarted_empty),
    Fault(name="broker and cache gone for a minute", strike=stores.broker_gone_for_a_minute, per_round=0),
    Fault(name="Postgres killed", strike=stores.postgres_killed, per_round=2, short=True),
    Fault(name="Postgres gone for half a minute", strike=stores.postgres_gone_for_half_a_minute, per_round=0),
    Fault(
        name="Postgres hangs",
        strike=stores.postgres_hangs,
        per_round=0.2,
        tolerates=_LEASED_TO_THE_DEAD,  # a claim may be committed that its claimant has given up
    ),
    Fault(name="Postgres drops all connections", strike=stores.postgres_drops_connections, per_round=4),
    Fault(name="Postgres read-only", strike=stores.postgres_read_only, per_round=2),
    Fault(name="Postgres refuses only the persist", strike=stores.postgres_refuses_the_persist, per_round=2),
    Fault(name="Postgres lost while a question is under way", strike=stores.postgres_lost_in_flight),
    Fault(name="Postgres back while a question is under way", strike=stores.postgres_back_in_flight),
    Fault(name="Postgres lost after Redis has missed a refresh", strike=stores.postgres_lost_after_redis),
    Fault(name="429 storm", strike=microsoft.throttled, per_round=0.4, tolerates=_MICROSOFT_REFUSES),
    Fault(
        name="429 storm without Retry-After",
        strike=microsoft.throttled_without_retry_after,
        per_round=0.2,
        tolerates=_MICROSOFT_REFUSES,
    ),
    Fault(name="5xx storm", strike=microsoft.server_errors, per_round=0.4, tolerates=_MICROSOFT_REFUSES),
    Fault(name="malformed answers", strike=microsoft.malformed, per_round=0.4, tolerates=_MICROSOFT_REFUSES),
    Fault(name="connections reset", strike=microsoft.connections_reset, per_round=0.4, tolerates=_MICROSOFT_REFUSES),
    Fault(name="grants with garbage beside the tokens", strike=microsoft.odd_grants, per_round=2, short=True),
    Fault(name="slow answers", strike=microsoft.slow_answers, per_round=1.5),
    Fault(
        name="answers lost (not strict)",
        strike=microsoft.lost_answers,
        per_round=0.2,
        strict=False,
        tolerates=_MICROSOFT_REFUSES,
    ),
    Fault(
        name="answers after the time-out (not strict)",
        strike=microsoft.answers_too_late,
        per_round=0.1,
        strict=False,
        tolerates=_MICROSOFT_REFUSES,
    ),
    Fault(name="50196 storm", strike=microsoft.loop_detected, per_round=0.6, short=True, tolerates=_MICROSOFT_REFUSES),
    Fault(
        name="50196 without Retry-After",
        strike=microsoft.loop_detected_for_long,
        per_round=0.1,
        tolerates=_MICROSOFT_REFUSES,
    ),
    Fault(
        name="client secret expired",
        strike=microsoft.secret_expired,
        per_round=0.3,
        tolerates=_MICROSOFT_REFUSES | {"client_misconfigured"},
    ),
    Fault(name="client secret rotated", strike=microsoft.secret_rotated),
    Fault(name="Microsoft's clock stepped by 5 min", strike=microsoft.clock_stepped),
    Fault(
        name="reconnected while a refresh is in flight", strike=microsoft.reconnected_in_flight, per_round=2, short=True
    ),
]
