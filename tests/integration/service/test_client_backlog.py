"""Sixty-four threads in four processes read a hundred stale mailboxes. Microsoft receives a hundred requests."""

import multiprocessing

from tests.integration.installation import Installation
from tests.integration.service.consumers import Order, Results, consume

_PROCESSES, _THREADS, _ACCOUNTS = 4, 16, 100


def test_many_readers_cause_one_request_per_account(installation: Installation) -> None:
    """All threads get the same tokens, and a strict Microsoft sees no refresh token twice."""
    emails = [f"user{number:03}@contoso.com" for number in range(_ACCOUNTS)]
    installation.sign_in(*emails, due=True, strict=True)

    served = _served_to_all(installation, emails)

    assert {email: len(tokens) for email, tokens in served.items()} == dict.fromkeys(emails, 1)
    assert installation.requests == _ACCOUNTS
    assert installation.query("SELECT sum(cardinality(refreshes)) FROM refresh_successes") == [(_ACCOUNTS,)]


def _served_to_all(installation: Installation, emails: list[str]) -> Results:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(_PROCESSES)
    order = Order(settings=installation.plain_settings(), now=installation.clock(), emails=emails, threads=_THREADS)
    ends = [context.Pipe(duplex=False) for _ in range(_PROCESSES)]
    consumers = [context.Process(target=consume, args=(order, start, sender)) for _, sender in ends]
    served: Results = {email: set() for email in emails}
    for consumer, (_, sender) in zip(consumers, ends, strict=True):
        consumer.start()
        sender.close()
    for consumer, (receiver, _) in zip(consumers, ends, strict=True):
        for email, tokens in receiver.recv().items():
            served[email] |= tokens
        receiver.close()
        consumer.join()
        consumer.close()
    return served
