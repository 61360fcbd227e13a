"""The names of all keys in Redis, except the broker's."""

from hashlib import blake2b

from worker.domain.account import AccountId


class Keys:
    """The names of one fleet's keys. They begin with the prefix of its namespace, which may be empty."""

    def __init__(self, prefix: str = "") -> None:
        self._root = f"{prefix}token-worker:"
        self.fleet = f"{self._root}fleet"  # the id of the database whose fleet uses these keys
        self.outbox = f"{self._root}outbox"  # a hash: one value per account, the newest
        self.unreadable = f"{self._root}outbox:unreadable"  # likewise, of values that do not open
        self.processes = f"{self._root}processes"  # a sorted set, because a scan would read all keys of the cache
        self.swept = f"{self._root}swept"

    def entry(self, account: AccountId) -> str:
        return f"{self._root}entry:{account}"

    def request(self, account: AccountId, request: str) -> str:
        digest = blake2b(request.encode(), digest_size=12).hexdigest()
        return f"{self._root}asked:{account}:{digest}"

    def rate(self, client: str) -> str:
        return f"{self._root}rate:{client}"

    def process(self, name: str) -> str:
        return f"{self._root}process:{name}"

    def trial(self, name: str) -> str:
        return f"{self._root}doctor:{name}"

    def throttle(self, client: str, domain: str) -> str:
        return f"{self._root}pause:{client}:{domain}"
