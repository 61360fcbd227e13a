"""The emulator itself. It owns the state, guards it with one lock, and decides every token request."""

import json
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import cached_property
from threading import RLock

from starlette.applications import Starlette

from worker.clock import utcnow
from worker.devkit.emulator.accounts import Accounts, Grant, Lifetime, SignIn, Terms, identity
from worker.devkit.emulator.app import build_app
from worker.devkit.emulator.exchange import EmulatorRequest, EmulatorResponse
from worker.devkit.emulator.faults import Fault, RawAnswer, Reset, Script, Tampered
from worker.devkit.emulator.introspection import introspect
from worker.devkit.emulator.keys import SigningKey, process_key
from worker.devkit.emulator.oauth_errors import OAuthError, Refused, refused
from worker.devkit.emulator.registrations import DEFAULT_CLIENT_ID, Registration, Registrations
from worker.devkit.emulator.signins import AuthorizationCode, DeviceCode, SignIns
from worker.devkit.emulator.statistics import Ledger, Statistics
from worker.devkit.emulator.tokens import Issue, Issuer
from worker.domain.client_type import ClientType
from worker.domain.scopes import resources

DEFAULT_SCOPE = (
    "https://outlook.office.com/IMAP.AccessAsUser.All https://outlook.office.com/SMTP.Send"
    " offline_access openid profile"
)
_DEVICE_GRANTS = frozenset({"urn:ietf:params:oauth:grant-type:device_code", "device_code"})


class Emulator:
    """Thread-safe. Reads the time from `clock` only, which must return aware UTC datetimes."""

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] = utcnow,
        access_token_lifetime: Lifetime = (timedelta(minutes=60), timedelta(minutes=90)),
        refresh_token_lifetime: timedelta = timedelta(days=90),
        rotate: bool = True,
        strict: bool = False,
        refresh_in: timedelta | None = None,
        registrations: Iterable[Registration] = (Registration(),),
    ) -> None:
        self.clock = clock
        self.base_url = "https://localhost"
        self.key: SigningKey = process_key()
        self.registrations = Registrations(registrations)
        terms = Terms(access_token_lifetime, refresh_token_lifetime, rotate, strict, refresh_in)
        self._accounts = Accounts(terms)
        self._sign_ins = SignIns()
        self._script = Script()
        self._ledger = Ledger()
        self._lock = RLock()

    @cached_property
    def app(self) -> Starlette:
        return build_app(self)

    def enrol(
        self,
        email: str,
        *,
        access_token_lifetime: Lifetime | None = None,
        refresh_token_lifetime: timedelta | None = None,
        rotate: bool | None = None,
        strict: bool | None = None,
        refresh_in: timedelta | None = None,
        client_id: str = DEFAULT_CLIENT_ID,
        scope: str = DEFAULT_SCOPE,
        client_type: ClientType = ClientType.CONFIDENTIAL,
    ) -> Grant:
        """Sign a user in. The arguments replace the terms of the account for good."""
        with self._lock:
            account = self._accounts.open(email)
            account.terms = account.terms.changed(
                access_token_lifetime, refresh_token_lifetime, rotate, strict, refresh_in
            )
            sign_in = self._accounts.sign_in(email, client_id, scope, client_type=client_type)
            self._ledger.open(account.email)
            now = self.clock()
            token = self._accounts.issue(sign_in, now)
            issue = _issue(sign_in, scope, token)
        access_token = Issuer(self.key, self.base_url, "common").access_token(issue, now)
        seconds = int(issue.lifetime.total_seconds())
        return Grant(account.email, seconds, issue.granted_scope, client_id, access_token, token)

    def change_terms(
        self,
        email: str,
        *,
        access_token_lifetime: Lifetime | None = None,
        refresh_token_lifetime: timedelta | None = None,
        rotate: bool | None = None,
        strict: bool | None = None,
        refresh_in: timedelta | None = None,
    ) -> None:
        """Change the terms of an account from its next refresh on. Raises KeyError if it never signed in."""
        with self._lock:
            account = self._accounts.find(email)
            account.terms = account.terms.changed(
                access_token_lifetime, refresh_token_lifetime, rotate, strict, refresh_in
            )

    def revoke(self, email: str) -> None:
        """End every sign-in of the account. Raises KeyError if it never signed in."""
        with self._lock:
            self._accounts.revoke(email)

    def add_fault(self, fault: Fault, email: str | None = None, times: int | None = None) -> None:
        """Inject a fault for one account or all, N times or until cleared. Faults come in the order of these calls."""
        with self._lock:
            self._script.add(fault, None if email is None else identity(email), times)

    def clear_faults(self, email: str | None = None) -> None:
        """Remove the faults of one account, or all faults."""
        with self._lock:
            self._script.clear(None if email is None else identity(email))

    def statistics(self) -> Statistics:
        with self._lock:
            return self._ledger.seen()

    def newest_refresh_token(self, email: str) -> str:
        """The newest refresh token of an account. Raises KeyError if it never got one."""
        with self._lock:
            token = self._accounts.find(email).newest_refresh_token
        if token is None:
            raise KeyError(email)
        return token

    def accepts(self, refresh_token: str) -> bool:
        """Whether a refresh with this token would be granted now. The call does not count as use of the token."""
        with self._lock:
            return self._accounts.accepts(refresh_token, self.clock())

    def authorize(self, code: AuthorizationCode) -> str:
        """The authorization code of a user who has just signed in."""
        with self._lock:
            return self._sign_ins.remember(code)

    def start_device(self, client_id: str, scope: str) -> DeviceCode:
        """Begin a sign-in by device code. Raises Refused for a client that is not registered."""
        self.registrations.find(client_id)
        with self._lock:
            return self._sign_ins.start_device(client_id, scope, self.clock())

    def approve_device(self, user_code: str, email: str) -> None:
        """Sign the user in who has entered a device code. Raises KeyError if no sign-in waits for this code."""
        with self._lock:
            self._sign_ins.approve(user_code, identity(email), self.clock())

    def admit(self, request: EmulatorRequest) -> Fault | None:
        """Count a token request, and return the injected fault that applies to it."""
        with self._lock:
            token = request.form.get("refresh_token", "")
            email = self._accounts.owner(token) or self._sign_ins.email_of(request.form)
            self._ledger.requested(email, self.clock())
            return self._script.take(email)

    def respond(self, request: EmulatorRequest, fault: Fault | None = None) -> EmulatorResponse:
        """Decide an admitted request and apply `fault` to the response. The caller waits for a Hang."""
        match fault:
            case RawAnswer():
                return EmulatorResponse(fault.status, fault.body, fault.content_type, fault.retry_after)
            case OAuthError():
                return self._refusal(request, fault)
            case Reset(after=False):
                return EmulatorResponse(0, b"", reset=True)
        now = self.clock()
        try:
            with self._lock:
                issue = self._decide(request, now)
        except Refused as no:
            return self._refusal(request, no.refusal)
        wants_client_info = request.form.get("client_info") == "1"
        issuer = Issuer(self.key, request.base_url, request.tenant)
        document = issuer.document(issue, now, client_info=wants_client_info)
        if isinstance(fault, Tampered):
            document = fault.bend(document)
        return EmulatorResponse(200, json.dumps(document).encode(), reset=isinstance(fault, Reset))

    def introspect(self, request: EmulatorRequest) -> EmulatorResponse:
        """The state of the ``token`` in the form, for a client that authenticates itself. Not counted as a request."""
        now = self.clock()
        try:
            _client, proven = self.registrations.authenticate(request.form, request.token_endpoint, now)
            if not proven:
                raise refused("7000218")
        except Refused as no:
            return self._refusal(request, no.refusal)
        return EmulatorResponse(200, json.dumps(introspect(self.key, request.form.get("token", ""), now)).encode())

    def _refusal(self, request: EmulatorRequest, refusal: OAuthError) -> EmulatorResponse:
        correlation_id = request.correlation_id or str(uuid.uuid4())
        body = refusal.body(now=self.clock(), base_url=request.base_url, correlation_id=correlation_id)
        return EmulatorResponse(refusal.status, body, retry_after=refusal.retry_after)

    def _decide(self, request: EmulatorRequest, now: datetime) -> Issue:
        form = request.form
        client, proven = self.registrations.authenticate(form, request.token_endpoint, now)
        grant_type = form.get("grant_type")
        if not grant_type:
            raise refused("900144", message="The request body must contain the parameter 'grant_type'.")
        if grant_type == "refresh_token":
            return self._refresh(request, client, now, proven=proven)
        if grant_type == "authorization_code":
            code = self._sign_ins.redeem_code(form, client.client_id, now)
            return self._first(code.email, client, code.scope, now, proven=proven, nonce=code.nonce)
        if grant_type in _DEVICE_GRANTS:
            email, device = self._sign_ins.redeem_device(form, client.client_id, now)
            return self._first(email, client, device.scope, now, proven=proven)
        raise refused("70003")

    def _refresh(self, request: EmulatorRequest, client: Registration, now: datetime, *, proven: bool) -> Issue:
        form, is_cross_origin = request.form, bool(request.origin)
        token = form.get("refresh_token")
        if not token:
            raise refused("900144", message="The request body must contain the parameter 'refresh_token'.")
        if len(resources(form.get("scope", "").split())) > 1:
            raise refused("28000")
        sign_in = self._accounts.redeem(token, client.client_id, now, proven=proven, is_cross_origin=is_cross_origin)
        account = sign_in.account
        rotated = self._accounts.issue(sign_in, now) if account.terms.rotate else None
        self._ledger.granted(account.email, now, refresh=True)
        return _issue(sign_in, form.get("scope") or sign_in.scope, rotated)

    def _first(
        self,
        email: str,
        client: Registration,
        scope: str,
        now: datetime,
        *,
        proven: bool,
        nonce: str | None = None,
    ) -> Issue:
        client_type = ClientType.CONFIDENTIAL if proven else ClientType.PUBLIC
        sign_in = self._accounts.sign_in(email, client.client_id, scope, client_type=client_type)
        token = self._accounts.issue(sign_in, now) if "offline_access" in scope.split() else None
        self._ledger.granted(sign_in.account.email, now, refresh=False)
        return _issue(sign_in, scope, token, nonce)


def _issue(sign_in: SignIn, scope: str, refresh_token: str | None, nonce: str | None = None) -> Issue:
    account = sign_in.account
    return Issue(
        email=account.email,
        oid=account.oid,
        client_id=sign_in.client_id,
        scope=scope,
        lifetime=account.next_lifetime(),
        refresh_token=refresh_token,
        refresh_in=account.terms.refresh_in,
        nonce=nonce,
    )
