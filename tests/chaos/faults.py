"""All faults that are injected into the fleet, how often, and the errors that consumers may get meanwhile."""

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
_LEASED_TO_A_KILLED_WORKER = frozenset({"unavailable"})
_POSTGRES_IS_DOWN = frozenset({"unavailable"})  # once the token in the cache has expired; a dead one is never served


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """``inject`` injects the fault once and returns the number of its occurrences. The long form does it ``per_round``
    times a round, at least once in all. ``tolerates`` lists the codes of errors that consumers may get."""

    name: str
    inject: Callable[[Fleet], int]
    per_round: float = 1
    short: bool = False
    strict: bool = True
    tolerates: frozenset[str] = frozenset()

    @property
    def injections(self) -> int:
        return max(1, round(self.per_round * ROUNDS)) if ROUNDS else int(self.short)


FAULTS = [
    Fault(
        name="worker child killed -9",
        inject=processes.child_killed,
        per_round=2,
        short=True,
        tolerates=_LEASED_TO_A_KILLED_WORKER,
    ),
    Fault(name="worker parent killed -9", inject=processes.parent_killed, tolerates=_LEASED_TO_A_KILLED_WORKER),
    Fault(
        name="killed -9 between response and commit (not strict)",
        inject=processes.child_killed_before_the_commit,
        strict=False,
        tolerates=_LEASED_TO_A_KILLED_WORKER,
    ),
    Fault(
        name="the same, left to the lease (not strict)",
        inject=processes.child_killed_and_left_to_the_lease,
        per_round=0,
        strict=False,
        tolerates=_LEASED_TO_A_KILLED_WORKER,
    ),
    Fault(name="SIGTERM to the worker mid-batch", inject=processes.worker_terminated),
    Fault(name="SIGTERM to all its processes mid-batch", inject=processes.service_terminated, short=True),
    Fault(name="two beats", inject=processes.two_beats, per_round=0.4),
    Fault(
        name="beat killed for longer than a token lives",
        inject=processes.beat_killed_for_longer_than_a_token_lives,
        per_round=0,
    ),
    Fault(name="Redis flushed", inject=stores.redis_flushed, per_round=2, short=True),
    Fault(name="Redis killed", inject=stores.redis_killed, per_round=2, short=True),
    Fault(name="Redis paused", inject=stores.redis_paused),
    Fault(name="Redis demoted", inject=stores.redis_demoted),
    Fault(name="Redis restarted empty", inject=stores.redis_restarted_empty),
    Fault(name="broker and cache gone for a minute", inject=stores.broker_gone_for_a_minute, per_round=0),
    Fault(
        name="Postgres killed",
        inject=stores.postgres_killed,
        per_round=2,
        short=True,
        tolerates=_POSTGRES_IS_DOWN,
    ),
    Fault(
        name="Postgres gone for half a minute",
        inject=stores.postgres_gone_for_half_a_minute,
        per_round=0,
        tolerates=_POSTGRES_IS_DOWN,
    ),
    Fault(
        name="Postgres hangs",
        inject=stores.postgres_hangs,
        per_round=0.2,
        tolerates=_LEASED_TO_A_KILLED_WORKER,  # Postgres may commit a lease that its worker has given up
    ),
    Fault(name="Postgres drops all connections", inject=stores.postgres_drops_connections, per_round=4),
    Fault(name="Postgres read-only", inject=stores.postgres_read_only, per_round=2, tolerates=_POSTGRES_IS_DOWN),
    Fault(
        name="Postgres refuses only the persist",
        inject=stores.postgres_refuses_the_persist,
        per_round=2,
        tolerates=frozenset({"backing_off"}),  # the newest token waits in the outbox
    ),
    Fault(
        name="Postgres lost while a request is in flight",
        inject=stores.postgres_lost_in_flight,
        tolerates=_POSTGRES_IS_DOWN,
    ),
    Fault(
        name="Postgres lost after Redis has missed a refresh",
        inject=stores.postgres_lost_after_redis,
        tolerates=_POSTGRES_IS_DOWN,
    ),
    Fault(
        name="the name of Postgres leads nowhere",
        inject=stores.postgres_name_leads_nowhere,
        per_round=2,
        tolerates=_POSTGRES_IS_DOWN,
    ),
    Fault(
        name="the name of Postgres leads to a hot standby",
        inject=stores.postgres_name_leads_to_a_standby,
        per_round=2,
        tolerates=_POSTGRES_IS_DOWN,
    ),
    Fault(name="the name of Redis leads nowhere", inject=stores.redis_name_leads_nowhere, per_round=2),
    Fault(name="the name of Redis leads to a replica", inject=stores.redis_name_leads_to_a_replica, per_round=2),
    Fault(
        name="the name of Redis leads to an older server",
        inject=stores.redis_name_leads_to_an_empty_server,
        per_round=2,
    ),
    Fault(name="429 storm", inject=microsoft.throttled, per_round=0.4, tolerates=_MICROSOFT_REFUSES),
    Fault(
        name="429 storm without Retry-After",
        inject=microsoft.throttled_without_retry_after,
        per_round=0.2,
        tolerates=_MICROSOFT_REFUSES,
    ),
    Fault(name="5xx storm", inject=microsoft.server_errors, per_round=0.4, tolerates=_MICROSOFT_REFUSES),
    Fault(name="malformed responses", inject=microsoft.malformed, per_round=0.4, tolerates=_MICROSOFT_REFUSES),
    Fault(name="connections reset", inject=microsoft.connections_reset, per_round=0.4, tolerates=_MICROSOFT_REFUSES),
    Fault(name="grants with garbage beside the tokens", inject=microsoft.odd_grants, per_round=2, short=True),
    Fault(name="slow responses", inject=microsoft.slow_responses, per_round=1.5),
    Fault(
        name="responses lost (not strict)",
        inject=microsoft.lost_responses,
        per_round=0.2,
        strict=False,
        tolerates=_MICROSOFT_REFUSES,
    ),
    Fault(
        name="responses after the time limit (not strict)",
        inject=microsoft.late_responses,
        per_round=0.1,
        strict=False,
        tolerates=_MICROSOFT_REFUSES,
    ),
    Fault(name="50196 storm", inject=microsoft.loop_detected, per_round=0.6, short=True, tolerates=_MICROSOFT_REFUSES),
    Fault(
        name="50196 without Retry-After",
        inject=microsoft.loop_detected_for_long,
        per_round=0.1,
        tolerates=_MICROSOFT_REFUSES,
    ),
    Fault(
        name="client secret expired",
        inject=microsoft.secret_expired,
        per_round=0.3,
        tolerates=_MICROSOFT_REFUSES | {"client_misconfigured"},
    ),
    Fault(name="client secret rotated", inject=microsoft.secret_rotated),
    Fault(name="Microsoft's clock stepped by 5 min", inject=microsoft.clock_stepped),
    Fault(
        name="reconnected while a refresh is in flight", inject=microsoft.reconnected_in_flight, per_round=2, short=True
    ),
]
