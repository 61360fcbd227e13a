"""A token request and its response, apart from HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class EmulatorResponse:
    """The response to a client. With `reset` the connection is reset instead."""

    status: int
    body: bytes = field(repr=False)
    content_type: str = "application/json; charset=utf-8"
    retry_after: int | str | None = None
    reset: bool = False


@dataclass(frozen=True, slots=True)
class EmulatorRequest:
    """A token request. `base_url` and `tenant` are those of the URL it was sent to."""

    form: Mapping[str, str] = field(repr=False)
    base_url: str
    tenant: str = "common"
    correlation_id: str = ""
    origin: str = ""  # of a request of a browser's page

    @property
    def token_endpoint(self) -> str:
        return f"{self.base_url}/{self.tenant}/oauth2/v2.0/token"
