"""Error names of OAuth 2.0 and its relatives, for answers without a listed number, and the worker's own codes."""

from worker.domain.codes.row import Group, Verdict
from worker.domain.scope import Scope

_RFC_6749 = "RFC 6749"
_WORKER = "worker"

ERROR_NAMES: tuple[Group, ...] = (
    Group(
        verdict=Verdict.UNPROVEN,
        scope=Scope.ACCOUNT,
        sign_in_helps=True,
        advice="sign_in",
        source=_RFC_6749,
        text="""
        invalid_grant -: The refresh token is expired, revoked or was issued to another client.
        access_denied -: The user, an administrator or the identity provider has refused.
        """,
    ),
    Group(
        verdict=Verdict.UNPROVEN,
        scope=Scope.ACCOUNT,
        sign_in_helps=True,
        advice="sign_in_or_wait",
        source=_RFC_6749,
        text="""
        invalid_request -: The request is refused as malformed; if all accounts show it, compare the settings.
        unauthorized_client -: The app may not use this grant type, or is not for this kind of account.
        unsupported_grant_type -: The authority does not take this grant type; check WORKER_AUTHORITY.
        unsupported_response_type -: The sign-in asks for a response type that is not supported.
        invalid_scope -: A scope is not valid; compare WORKER_SCOPES or the account's own.
        invalid_resource -: The resource is unknown or not configured in the tenant. @published list
        invalid_target -: The resource is unknown or not allowed. @RFC 8707
        """,
    ),
    Group(
        verdict=Verdict.MISCONFIGURED,
        scope=Scope.CLIENT,
        advice="application",
        flags=("credential",),
        source=_RFC_6749,
        text="""
        invalid_client -: The client secret or certificate is refused; set a valid one.
        """,
    ),
    Group(
        verdict=Verdict.REAUTH,
        scope=Scope.ACCOUNT,
        sign_in_helps=True,
        advice="sign_in",
        source="OpenID Connect",
        text="""
        interaction_required -: Something must be answered by the user at a browser.
        login_required -: The user must sign in again.
        account_selection_required -: The user must choose an account.
        """,
    ),
    Group(
        verdict=Verdict.REAUTH,
        scope=Scope.RESOURCE,
        sign_in_helps=True,
        advice="consent",
        source="OpenID Connect",
        text="""
        consent_required -: The user or an administrator must consent.
        """,
    ),
    Group(
        verdict=Verdict.REAUTH,
        scope=Scope.ACCOUNT,
        sign_in_helps=True,
        advice="sign_in",
        source="RFC 8628",
        text="""
        expired_token -: The device code has expired; start the sign-in again.
        authorization_declined -: The user has declined; start the sign-in again. @device code page
        bad_verification_code -: The device code is not valid; start the sign-in again. @device code page
        """,
    ),
    Group(
        verdict=Verdict.TRANSIENT,
        scope=Scope.ACCOUNT,
        advice="wait",
        source="RFC 8628",
        text="""
        authorization_pending -: The user of a device code has not signed in yet; keep polling.
        slow_down -: The same is asked for too often; wait longer between two requests.
        """,
    ),
    Group(
        verdict=Verdict.TRANSIENT,
        scope=Scope.SERVICE,
        advice="wait",
        source=_RFC_6749,
        text="""
        temporarily_unavailable -: The identity platform is busy.
        server_error -: The identity platform failed.
        """,
    ),
)

OWN: tuple[Group, ...] = (
    Group(
        verdict=Verdict.TRANSIENT,
        scope=Scope.NETWORK,
        advice="wait",
        source=_WORKER,
        text="""
        dns -: The name of the authority's host is not resolved; check DNS from the worker.
        connect_failed -: The authority refuses connections; check firewall and proxy.
        connect_timeout -: No connection came about in time; check firewall and routing.
        timeout -: The request was sent and not answered in time.
        connection_lost -: The connection broke before the answer was whole.
        tls -: TLS failed; check WORKER_CA_BUNDLE and what inspects the traffic.
        """,
    ),
    Group(
        verdict=Verdict.TRANSIENT,
        scope=Scope.SERVICE,
        advice="wait",
        source=_WORKER,
        text="""
        http_5xx -: The identity platform, or a gateway before it, failed without a code.
        http_2xx -: An answer without tokens; something between worker and Microsoft may have answered.
        http_3xx -: A redirect, which the worker does not follow; something may stand between worker and Microsoft.
        malformed_answer -: A success without a readable access token; something may have changed the answer.
        discovery_failed -: The authority's OpenID metadata cannot be read.
        internal_error -: The worker met a bug or a damaged row; its log has the trace.
        """,
    ),
    Group(
        verdict=Verdict.TRANSIENT,
        scope=Scope.ACCOUNT,
        advice="wait",
        source=_WORKER,
        text="""
        http_4xx -: A refusal without an OAuth error; a proxy or gateway may have answered instead of Microsoft.
        """,
    ),
    Group(
        verdict=Verdict.THROTTLED,
        scope=Scope.CLIENT,
        advice="wait",
        source=_WORKER,
        text="""
        http_429 -: Microsoft throttles the app registration; the worker waits as long as it is asked to.
        """,
    ),
    Group(
        verdict=Verdict.MISCONFIGURED,
        scope=Scope.TENANT,
        advice="application",
        source=_WORKER,
        text="""
        discovery_http_4xx -: The authority does not exist; correct WORKER_AUTHORITY or the account's own.
        authority_refused -: The account's authority is not on a host that is allowed; store the account anew.
        unknown_client -: The account names an app registration that is not configured; add it or store it anew.
        """,
    ),
    Group(
        verdict=Verdict.MISCONFIGURED,
        scope=Scope.CLIENT,
        advice="application",
        source=_WORKER,
        text="""
        no_credential -: The app registration has neither secret nor certificate; set one.
        """,
    ),
)
