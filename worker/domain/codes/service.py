"""Codes that pass by themselves: throttling, and failures of the identity platform or of what a tenant adds to it."""

from worker.domain.codes.row import Group, Verdict
from worker.domain.scope import Scope

GROUPS: tuple[Group, ...] = (
    Group(
        verdict=Verdict.THROTTLED,
        scope=Scope.ACCOUNT,
        advice="wait",
        text="""
        50196 LoopDetected: Too many equal requests for this account; the worker waits half an hour.
        """,
    ),
    Group(
        verdict=Verdict.THROTTLED,
        scope=Scope.TENANT,
        advice="wait",
        text="""
        90055 TenantThrottlingError: Too many requests for this tenant; the worker spares it for a while.
        """,
    ),
    Group(
        verdict=Verdict.TRANSIENT_LONG,
        scope=Scope.ACCOUNT,
        advice="locked",
        text="""
        50053 IdsLocked: Failed sign-ins have locked the account, or Microsoft distrusts the worker's address.
        """,
    ),
    Group(
        verdict=Verdict.TRANSIENT,
        scope=Scope.SERVICE,
        advice="wait",
        text="""
        50000 TokenIssuanceError: The token service failed.
        50033 RetryableError: The token service failed for a moment.
        50087 SasRetryableError: The service for second factors failed for a moment.
        70012 MsaServerError: The service for personal accounts failed.
        90006 ExternalServerRetryableError: A service behind the token service failed for a moment.
        90012 RequestTimeout: The token service took too long.
        90024 RequestBudgetExceededError: The token service took too long.
        90033 MsodsServiceUnavailable: Microsoft's directory does not answer.
        90036 MsodsServiceUnretryableFailure: Microsoft's directory failed; open a support ticket if it stays.
        90090 GraphRetryableError: Microsoft's directory failed for a moment.
        90091 GraphServiceUnreachable: Microsoft's directory does not answer.
        90092 GraphNonRetryableError: Microsoft's directory failed; open a support ticket if it stays.
        131001 PublicIdentifierSasBeginCallRetriableError: The service for second factors failed. @sign-in page
        131003 PublicIdentifierSasEndCallRetriableError: The service for second factors failed. @sign-in page
        50183 OneTimePasscodeCacheError: The service for one-time passcodes failed. @sign-in page
        230109 CachedCredentialNonGWAuthNRequestsNotSupported: Microsoft's backup service got the request by mistake.
        """,
    ),
    Group(
        verdict=Verdict.TRANSIENT,
        scope=Scope.TENANT,
        advice="wait",
        text="""
        50088 -: The tenant's limit of calls for second factors is reached.
        500881 -: The tenant's limit of calls for second factors is reached. @msandbu/azuread
        50166 ExternalClaimsProviderThrottled: The tenant's external claims provider throttles.
        501621 ClaimsTransformationTimeoutRegularExpressionTimeout: A claims transformation of the tenant is too slow.
        40010 OAuth2IdPRetryableServerError: The tenant's own identity provider failed for a moment.
        40008 OAuth2IdPUnretryableServerError: The tenant's own identity provider fails.
        20001 WsFedSignInResponseError: The tenant's own identity provider answers wrongly.
        20012 WsFedMessageInvalid: The tenant's own identity provider answers wrongly.
        20033 FedMetadataInvalidTenantName: The metadata of the tenant's own identity provider are wrong.
        80001 OnPremiseStoreIsNotAvailable: The tenant's sign-in agent does not reach its directory.
        80002 OnPremisePasswordValidatorRequestTimedout: The tenant's sign-in agent took too long.
        80005 OnPremisePasswordValidatorUnpredictableWebException: The tenant's sign-in agent answers wrongly.
        80007 OnPremisePasswordValidatorErrorOccurredOnPrem: The tenant's sign-in agent cannot validate passwords.
        80010 OnPremisePasswordValidationEncryptionException: The tenant's sign-in agent cannot decrypt passwords.
        80013 OnPremisePasswordValidationTimeSkew: The clocks of the tenant's sign-in agent and directory differ.
        80014 OnPremisePasswordValidationAuthenticationAgentTimeout: The tenant's sign-in agent took too long.
        """,
    ),
    Group(
        verdict=Verdict.TRANSIENT,
        scope=Scope.ACCOUNT,
        advice="wait",
        text="""
        70016 AuthorizationPending: The user of a device code has not signed in yet; keep polling.
        """,
    ),
    Group(
        verdict=Verdict.REAUTH,
        scope=Scope.ACCOUNT,
        sign_in_helps=True,
        advice="sign_in",
        text="""
        40009 OAuth2IdPRefreshTokenRedemptionUserError: The tenant's own identity provider wants to see the user.
        40014 -: The tenant's own identity provider wants to see the user. @sign-ins report
        40015 OAuth2IdPAuthCodeRedemptionUserError: The tenant's own identity provider wants to see the user.
        50008 InvalidSamlToken: The assertion of the tenant's own identity provider is wrong or missing.
        5000819 InvalidSamlTokenEmailMissingOrInvalid: The assertion of the identity provider lacks the e-mail address.
        """,
    ),
)
