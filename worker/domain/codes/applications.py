"""Codes about the request, the app registration, or the application's standing in a tenant; no user is to blame."""

from worker.domain.codes.row import Group, Verdict
from worker.domain.scope import Scope

GROUPS: tuple[Group, ...] = (
    Group(
        verdict=Verdict.MISCONFIGURED,
        scope=Scope.CLIENT,
        advice="application",
        flags=("credential",),
        text="""
        7000215 -: The client secret is wrong; set WORKER_CLIENT_SECRET to the secret's value, not to its id.
        7000222 InvalidClientSecretExpiredKeysProvided: The client secret has expired; create a new one and set it.
        700027 -: No certificate of the app registration fits the signature; upload the one the worker uses.
        700030 -: The certificate's subject name is not one that the app registration allows.
        50012 AuthenticationFailed: The client assertion is refused; check the certificate and the worker's clock.
        50013 InvalidAssertion: The client assertion is refused; check the certificate and the worker's clock.
        50048 SubjectMismatchesIssuer: The client assertion names another client; check WORKER_CLIENT_ID.
        700024 -: The client assertion is out of date; set the worker's clock right. @Azure/login#180
        70021 -: No federated identity credential fits the assertion. @Azure/azure-workload-identity#340
        700211 -: The federated identity credential has another issuer. @Azure/azure-workload-identity#1200
        700213 -: The federated identity credential has another subject. @Azure/login#482
        7002137 -: The federated identity credential has another subject. @microsoft/Agents#202
        7002138 -: The federated identity credential has another subject, in upper or lower case. @Azure/login#517
        700229 ForbiddenTokenType: The federated identity credential needs a token of an application, not of a user.
        """,
    ),
    Group(
        verdict=Verdict.MISCONFIGURED,
        scope=Scope.CLIENT,
        advice="application",
        flags=("credential", "general"),
        text="""
        70002 InvalidClient: The client's credential is refused; compare it with the app registration's.
        """,
    ),
    Group(
        verdict=Verdict.MISCONFIGURED,
        scope=Scope.CLIENT,
        advice="application",
        text="""
        7000218 -: The request has no credential; set the client secret or certificate.
        900384 -: The signature of a presented token does not hold; check the certificate.
        70001 UnauthorizedClient: The application is disabled or unknown; look at its app registration.
        """,
    ),
    Group(
        verdict=Verdict.MISCONFIGURED,
        scope=Scope.ACCOUNT,
        advice="application",
        text="""
        90014 MissingRequiredField: A field is missing in the request; report it as a bug of this worker.
        900144 -: A parameter is missing in the request; report it as a bug of this worker.
        """,
    ),
    Group(
        verdict=Verdict.PUBLIC_CLIENT,
        scope=Scope.ACCOUNT,
        advice="application",
        flags=("general",),
        text="""
        90023 InvalidRequest: The grant came from a device code; the worker asks again without its credential.
        """,
    ),
    Group(
        verdict=Verdict.PUBLIC_CLIENT,
        scope=Scope.ACCOUNT,
        advice="application",
        text="""
        700025 InvalidClientPublicClientWithCredential: A public client's grant; the worker asks without its credential.
        """,
    ),
    Group(
        verdict=Verdict.SCOPES_REFUSED,
        scope=Scope.CLIENT,
        advice="application",
        text="""
        28000 -: The scopes name more than one resource; ask for one resource only. @this project
        28003 -: The scope is empty; name the scopes of one resource.
        700022 InvalidMultipleResourcesScope: The scopes name more than one resource; ask for one resource only.
        700023 InvalidResourcelessScope: The scopes name no resource; write them as full addresses.
        650057 -: The app registration does not list this resource; add its permissions there.
        """,
    ),
    # What work accounts may be asked for, personal ones may not: no evidence against the registration.
    Group(
        verdict=Verdict.SCOPES_REFUSED,
        scope=Scope.RESOURCE,
        advice="application",
        text="""
        70011 InvalidScope: A scope is not valid; compare WORKER_SCOPES, or the account's own, with Microsoft's names.
        28002 -: A scope is not valid; compare WORKER_SCOPES, or the account's own, with Microsoft's names.
        650053 -: The resource has no such scope; check the spelling of the scopes. @O365/python-o365#551
        """,
    ),
    Group(
        verdict=Verdict.AUTHORITY_REFUSED,
        scope=Scope.CLIENT,
        advice="application",
        text="""
        50194 -: A single-tenant app was asked at /common; set WORKER_AUTHORITY, or the account's own, to the tenant.
        9001023 -: This grant type is not for /common or /consumers; set the authority to the tenant.
        90124 V1ResourceV2GlobalEndpointNotSupported: The resource is not for /common; set the authority to the tenant.
        90130 NonConvergedAppV2GlobalEndpointNotSupported: The app is not for /common; set the authority to the tenant.
        70003 UnsupportedGrantType: The authority does not take this grant type; check WORKER_AUTHORITY.
        """,
    ),
    # Likewise: an app that takes one kind of account goes on for that kind.
    Group(
        verdict=Verdict.AUTHORITY_REFUSED,
        scope=Scope.TENANT,
        advice="other_account",
        text="""
        9002331 -: The app takes personal accounts only; set the authority to /consumers. @thobach/MMM-MicrosoftToDo#28
        9002332 -: The app takes work accounts only; set the authority to /organizations or to the tenant.
        9002346 -: The app takes personal accounts only; set the authority to /consumers. @this project
        """,
    ),
    Group(
        verdict=Verdict.MISCONFIGURED,
        scope=Scope.TENANT,
        advice="unknown_application",
        flags=("abandoned",),
        text="""
        700016 UnauthorizedClient_DoesNotMatchRequest: Unknown in the tenant; if in all, check WORKER_CLIENT_ID.
        700011 UnauthorizedClientAppNotFoundInOrgIdTenant: The tenant does not know the app: removed, or never allowed.
        7000112 UnauthorizedClientApplicationDisabled: The tenant's administrator has disabled the app.
        7000229 -: The app has no service principal in the tenant. @Azure/Commercial-Marketplace-SaaS-Accelerator#830
        1000031 -: The app cannot be used in the tenant at present; its administrator decides.
        """,
    ),
    Group(
        verdict=Verdict.MISCONFIGURED,
        scope=Scope.TENANT,
        advice="unknown_application",
        text="""
        90099 -: The app has not been authorized in the tenant; its administrator must consent.
        65005 MisconfiguredApplication: The app asks for permissions that it does not list or the resource lacks.
        65002 -: The client id belongs to Microsoft; register an application of your own.
        650056 -: The app lists no permissions, or the tenant's administrator has not consented.
        7000110 -: The app exists several times in the tenant, or the request is ambiguous. @support articles
        7000114 -: The app may not ask on behalf of users in this way.
        90009 TokenForItselfMissingIdenticalAppIdentifier: The app asks for a token for itself; name it by its id.
        50003 MissingSigningKey: The app lacks a signing key in the tenant.
        50146 MissingCustomSigningKey: The app lacks its own signing key, or the key has expired.
        501461 -: Mapped claims need a resource of the tenant or a signing key of the app's own.
        50010 AudienceUriValidationFailed: The app has no audience configured.
        900439 USGClientNotSupportedOnPublicEndpoint: The app is at home in the US Government cloud. @support articles
        100007 -: The regional endpoint is for Microsoft's own applications only; unset MSAL_FORCE_REGION.
        """,
    ),
    Group(
        verdict=Verdict.MISCONFIGURED,
        scope=Scope.RESOURCE,
        advice="missing_service",
        flags=("abandoned",),
        text="""
        500014 -: The service is disabled in the tenant. @AzureAD/microsoft-authentication-library-for-dotnet#3150
        650052 -: The organization has no subscription to the service.
        """,
    ),
    Group(
        verdict=Verdict.MISCONFIGURED,
        scope=Scope.RESOURCE,
        advice="missing_service",
        text="""
        50001 InvalidResource: The resource is disabled in the tenant or does not exist.
        500011 InvalidResourceServicePrincipalNotFound: The tenant does not have the service, or it is misspelt.
        650054 -: The app asks for a resource that has been removed.
        """,
    ),
    Group(
        verdict=Verdict.MISCONFIGURED,
        scope=Scope.TENANT,
        advice="unknown_organization",
        flags=("abandoned",),
        text="""
        90002 InvalidTenantName: The tenant does not exist, or belongs to another cloud.
        """,
    ),
    Group(
        verdict=Verdict.MISCONFIGURED,
        scope=Scope.TENANT,
        advice="unknown_organization",
        text="""
        900021 InvalidTenantNameEmptyGuidIdentifier: The authority names an empty tenant; correct it. @sign-in page
        900022 InvalidTenantNameEmptyIdentifier: The authority names no tenant; correct it. @sign-in page
        900023 InvalidTenantNameFormat: The authority names no valid tenant; correct it. @caddy-dns/azure#3
        90019 MissingTenantRealm: The authority names no tenant; correct it.
        50029 -: The domain in the authority has characters that are not valid.
        50049 NoSuchInstanceForDiscovery: The authority's host is not one of Microsoft's.
        50050 MalformedDiscoveryRequest: The discovery request is malformed; check the authority.
        90038 NationalCloudTenantRedirection: The tenant belongs to a national cloud; use that cloud's authority.
        90043 NationalCloudAuthCodeRedirection: The tenant belongs to a national cloud; use that cloud's authority.
        90051 InvalidNationalCloudId: The national cloud named by the request does not exist.
        900432 -: Applications with a credential cannot ask across clouds; use the cloud of the tenant.
        900382 -: Applications with a credential cannot ask across clouds; use the cloud of the tenant.
        50169 InvalidRequestBadRealm: The realm is not one of the tenant's.
        """,
    ),
    Group(
        verdict=Verdict.UNPROVEN,
        scope=Scope.ACCOUNT,
        sign_in_helps=True,
        advice="sign_in_or_wait",
        text="""
        9002325 -: The redirect URI is registered as SPA, and the sign-in has no PKCE. @thobach/MMM-MicrosoftToDo#27
        9002326 -: A browser redeems codes of a server. @Azure-Samples/ms-identity-javascript-angular-tutorial#37
        70005 UnsupportedResponseType: The sign-in asks for a response type that the app does not allow.
        700054 -: The sign-in asks for an id_token that the app registration does not allow.
        70007 UnsupportedResponseMode: The sign-in asks for a response mode that does not exist.
        90004 InvalidRequestFormat: The request is malformed.
        90005 InvalidRequestWithMultipleRequirements: The request has hints that exclude each other.
        90010 NotSupported: The request asks for an algorithm that does not exist.
        90015 QueryStringTooLong: The address of the request is too long.
        90022 AuthenticatedInvalidPrincipalNameFormat: The principal's name in the request is malformed.
        90056 BadResourceRequest: The request went to the wrong endpoint or lacks the authorization code.
        900561 BadResourceRequestInvalidRequest: The endpoint takes POST only; something has changed the method.
        90100 InvalidRequestParameter: A parameter of the request is empty or not valid.
        901002 -: The parameter `resource` is not supported by this endpoint.
        90102 InvalidUriParameter: A parameter of the request is no absolute address.
        90117 InvalidRequestInput: The request is not valid.
        90121 InvalidEmptyRequest: The request is empty; something has removed its body.
        165900 InvalidApiRequest: The request is not valid.
        165004 -: The request is refused; the description in Microsoft's answer says why.
        50006 InvalidSignature: A signature in the request does not hold.
        50032 WeakRsaKey: A key in the request is too weak.
        50086 SasNonRetryableError: The second factor failed for good.
        50099 PKeyAuthInvalidJwtUnauthorized: The device's proof has a signature that does not hold.
        240002 RequiredClaimIsMissing: A presented id_token lacks a claim and cannot be exchanged.
        135010 KeyNotFound: A key that the request names was not found.
        220300 BlockedAdalVersion: The client library is too old. @sign-in page
        220450 UnsupportedAndroidWebViewVersion: The browser of the sign-in is too old.
        50141 ProtectedKeyMisuse: A protected key was used for something else. @sign-in page
        """,
    ),
)
