"""The HTTP client that MSAL is given. It sends what MSAL asks for itself: metadata, and the device code flow."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from worker.domain.http import HttpResponse
from worker.domain.outcome import Misconfigured, Scope, Transient
from worker.identity.curl import FORM_TYPE, CurlPool, HttpRequest, header_lines, with_query
from worker.identity.endpoints import check_endpoints


class HttpStatusError(Exception):
    """The server has answered with an error status."""


@dataclass(frozen=True, slots=True)
class MsalResponse:
    """An HttpResponse with the attributes that MSAL reads."""

    status_code: int
    text: str
    headers: Mapping[str, str]

    def raise_for_status(self) -> None:
        if self.status_code >= HTTPStatus.BAD_REQUEST:
            raise HttpStatusError


class MsalTransport:
    """MSAL's ``http_client``, one for each app. Raises TransferError if there is no response, and EndpointRefused for
    metadata whose endpoints are neither on the authority's host nor on one of ``endpoint_hosts``."""

    def __init__(self, pool: CurlPool, *, authority: str, endpoint_hosts: Collection[str]) -> None:
        self._pool = pool
        self._authority = authority
        self._endpoint_hosts = endpoint_hosts
        self._discovery_status: int | None = None

    def discovery_outcome(self) -> Transient | Misconfigured:
        """The meaning of a discovery that failed: a 4xx is a wrong authority, anything else may pass."""
        status = self._discovery_status or 0
        is_refused = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
        if is_refused and status != HTTPStatus.TOO_MANY_REQUESTS:
            return Misconfigured(code=f"discovery_http_{status}", scope=Scope.TENANT)
        return Transient(code="discovery_failed", scope=Scope.SERVICE)

    def get(
        self, url: str, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None, **_: object
    ) -> MsalResponse:
        response = self._pool.request(HttpRequest(with_query(url, params), header_lines(headers or {})))
        self._discovery_status = response.status
        metadata = response.json_object() or {}
        check_endpoints(metadata, authority=self._authority, allowed=self._endpoint_hosts)
        return _for_msal(response)

    def post(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **_: object,
    ) -> MsalResponse:
        lines = header_lines({**(headers or {}), **FORM_TYPE})
        return _for_msal(self._pool.request(HttpRequest(with_query(url, params), lines, urlencode(data or {}))))


def _for_msal(response: HttpResponse) -> MsalResponse:
    """MSAL reads strict JSON only."""
    decoded = response.json_object()
    text = response.body.decode("utf-8", "replace") if decoded is None else json.dumps(decoded)
    return MsalResponse(response.status, text, {})
