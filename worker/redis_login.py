"""How cache and broker log in to Redis: with the password of the URL, or with that of a file."""

from pathlib import Path

from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError


class PasswordFile(CredentialProvider):
    """A password that redis-py reads for each new connection, because it may expire."""

    def __init__(self, username: str | None, path: str) -> None:
        self._username = username
        self._path = path

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Raises AuthenticationError, as a wrong password does, if the file cannot be read."""
        try:
            password = Path(self._path).read_text().strip()
        except (OSError, ValueError):
            raise AuthenticationError("WORKER_REDIS_PASSWORD_FILE cannot be read") from None
        return (self._username, password) if self._username else (password,)
