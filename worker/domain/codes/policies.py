"""Codes that a sign-in does not mend: an administrator, a policy or Microsoft stands in the way of one account."""

from worker.domain.codes.row import Group, Verdict
from worker.domain.scope import Scope

GROUPS: tuple[Group, ...] = (
    Group(
        verdict=Verdict.BLOCKED,
        scope=Scope.RESOURCE,
        advice="policy",
        text="""
        53003 BlockedByConditionalAccess: A Conditional Access policy blocks this access; the sign-in log names it.
        530021 ApplicationUsedIsNotAnApprovedAppRequiredByConditionalAccess: Approved apps only. @msandbu/azuread
        530031 -: A Conditional Access policy forbids the token; the sign-in log names it. @this project
        530032 BlockedByConditionalAccessOnSecurityPolicy: A security policy of the tenant blocks this request.
        530033 BlockedByConditionalAccessForRemoteDeviceFlow: Device codes are forbidden. @msandbu/azuread
        530034 DelegatedAdminBlockedDueToSuspiciousActivity: A delegated administrator is at risk in the home tenant.
        530035 BlockedBySecurityDefaults: The tenant's security defaults block this access.
        530084 -: Token protection wants tokens bound to a device; ask for an exception. @Azure/azure-dev#7704
        53009 RemediateCompliantApp: Conditional Access wants an app with an app protection policy. @sign-in page
        530004 AcceptCompliantDevice: The tenant does not trust compliant devices of guests' homes. @support articles
        50005 DevicePolicyError: Conditional Access does not support the platform of the device.
        50177 ExternalChallengeNotSupportedForPassthroughUsers: Terms of use or other policies exclude such guests.
        50178 SessionControlNotSupportedForPassthroughUsers: A session policy excludes such guests.
        9001011 RequiredDeviceStateNotSupported: The policy wants an unsupported state of the device. @sign-in page
        221000 DeviceOnlyTokensNotSupportedByResource: The resource does not take tokens of a device alone.
        """,
    ),
    Group(
        verdict=Verdict.BLOCKED,
        scope=Scope.TENANT,
        advice="policy",
        text="""
        50002 NotAllowedTenant: A tenant restriction of the network forbids this tenant.
        500021 NotAllowedTenantRestrictedTenant: A tenant restriction of the network forbids this tenant.
        500022 -: A tenant restriction of the network forbids this tenant.
        5000211 NotAllowedTenantRestrictionsV2Tenant: A tenant restriction policy forbids this tenant. @B2B guide
        500212 NotAllowedByOutboundPolicyTenant: The user's home tenant does not allow access to the other tenant.
        500213 NotAllowedByInboundPolicyTenant: The tenant does not let users of that home tenant in.
        1000104 XCB2BResourceCloudNotAllowedOnIdentityTenant: The home tenant does not allow the resource's cloud.
        90084 OrgIdWsFederationGuestNotAllowed: Guest accounts are not allowed here.
        50172 -: The external claims provider is not approved in the tenant. @sign-ins report
        50161 InvalidExternalSecurityChallengeConfiguration: The external provider does not send the claims it should.
        50170 MissingExternalClaimsProviderMapping: The external control is not mapped in the tenant.
        50107 InvalidRealmUri: The federated realm does not exist; the tenant's federation must be mended.
        50180 WindowsIntegratedAuthMissing: The tenant must switch on seamless single sign-on.
        51001 DomainHintMustbePresent: The request lacks the domain hint that an on-premises name needs.
        500186 CertificateValidationBlockedByPolicy: A policy forbids this certificate. @sign-in page
        50017 CertificateValidationFailed: The user's certificate or its revocation list cannot be validated.
        220501 InvalidCrlDownload: The revocation list of the user's certificate cannot be fetched.
        50192 RawCredentialExpectedNotFound: The user's certificate is missing; a proxy may remove it.
        50120 ThresholdJwtInvalidJwtFormat: A presented token has a wrong header.
        50124 ClaimsTransformationInvalidInputParameter: A claims transformation of the tenant is wrong.
        501241 -: A claims transformation of the tenant lacks an input.
        50042 UnableToGeneratePairwiseIdentifierWithMissingSalt: The application's principal lacks its salt.
        50043 UnableToGeneratePairwiseIdentifierWithMultipleSalts: The application's principal has several salts.
        90085 OrgIdWsFederationSltRedemptionFailed: The organization has not been provisioned yet.
        51000 RequiredFeatureNotEnabled: A feature that the request needs is switched off in the tenant.
        90082 OrgIdWsFederationNotSupported: The authentication policy of the tenant does not support this request.
        130500 PhoneSignInBlockedByUserCredentialPolicy: A policy forbids sign-ins by phone. @sign-in page
        130502 AccessPassBlockedByPolicy: A policy forbids temporary access passes. @sign-in page
        131010 PublicIdentifierAuthUserNotAllowedByPolicy: A policy forbids this kind of sign-in. @sign-in page
        135016 FidoBlockedByPolicy: A policy forbids this security key. @sign-in page
        """,
    ),
    Group(
        verdict=Verdict.BLOCKED,
        scope=Scope.RESOURCE,
        advice="admin_consent",
        text="""
        90094 AdminConsentRequired: Only an administrator can consent to these permissions.
        90095 AdminConsentRequiredRequestAccess: Only an administrator can consent; the user was offered to ask for it.
        90093 GraphUserUnauthorized: The directory refuses the user's request; an administrator must allow it.
        """,
    ),
    Group(
        verdict=Verdict.BLOCKED,
        scope=Scope.RESOURCE,
        advice="assignment",
        text="""
        50105 EntitlementGrantsNotFound: The application requires an assignment, and this user has none.
        """,
    ),
    Group(
        verdict=Verdict.BLOCKED,
        scope=Scope.ACCOUNT,
        advice="disabled",
        text="""
        50057 UserDisabled: An administrator has disabled the user.
        500571 GuestUserDisabled: An administrator has disabled the guest. @support articles
        135011 DeviceIsDisabled: The device that was used to sign in has been disabled.
        80012 OnPremisePasswordValidationAccountLogonInvalidHours: The directory allows this user certain hours only.
        """,
    ),
    Group(
        verdict=Verdict.BLOCKED,
        scope=Scope.ACCOUNT,
        advice="unknown_account",
        text="""
        50034 UserAccountNotFound: The user is not in this tenant: deleted, misspelt or at home in another.
        500341 UserAccountDeleted: The user was deleted; an administrator can restore it for 30 days. @sign-in page
        500342 UserAccountNotFoundNotConfiguredForRemoteNgc: The user is not in this tenant. @sign-in page
        500343 UserAccountNotFoundFailedToCreateRemoteSignIn: The user is not in this tenant. @sign-in page
        500344 UserAccountNotFoundForFidoSignIn: The user is not in this tenant. @sign-in page
        51004 UserAccountNotInDirectory: The user is not in this tenant's directory.
        50020 UserUnauthorized: The account belongs to another provider or tenant and was not invited here.
        500211 SshUserUnauthorized: The account belongs to another tenant and was not invited here. @B2B guide
        50014 GuestUserInPendingState: The guest has not accepted the invitation, or is not in this tenant.
        50059 MissingTenantRealmAndNoUserInformationProvided: The request does not name the user's tenant.
        50128 InvalidDomainName: The request does not name the user's tenant.
        16000 InteractionRequired: The account is not in this tenant and must be invited first.
        16003 SsoUserAccountNotFoundInResourceTenant: The user was not added to this tenant.
        90072 PassThroughUserMfaError: The guest is not in this tenant, or its identifiers do not match.
        81011 DesktopSsoLookupUserBySidFailed: The user of the Windows sign-in is not in the directory.
        90125 DebugModeEnrollTenantNotFound: The user is not in the directory.
        90126 DebugModeEnrollTenantNotInferred: The name does not show the user's tenant.
        1000000 UserNotBoundError: The account is not yet bound to its external identity provider.
        """,
    ),
    Group(
        verdict=Verdict.BLOCKED,
        scope=Scope.ACCOUNT,
        advice="other_account",
        text="""
        500200 -: The application does not take personal accounts unless they are invited. @Azure/azure-mcp#105
        500201 UserUnauthorizedApiVersionNotSupported: This endpoint has no tokens for personal accounts. @sign-in page
        500202 UserUnauthorizedMsaGuestUsersNotSupported: Personal accounts that are guests are not taken. @sign-in page
        500208 -: The account is of a kind, work or personal, that this tenant does not take.
        90027 -: This endpoint has no tokens for personal accounts; use version 2.0 of the endpoint.
        """,
    ),
    Group(
        verdict=Verdict.BLOCKED,
        scope=Scope.ACCOUNT,
        advice="denied",
        text="""
        90123 IdentityProviderAccessDenied: The identity provider or claims provider has denied the token.
        54000 MinorUserBlockedLegalAgeGroupRule: A minor's account may not use this application.
        220400 BlockedClientId: Microsoft blocks this application for the account. @sign-in page
        67003 ActorNotValidServiceIdentity: The acting identity is not a valid one.
        """,
    ),
)
