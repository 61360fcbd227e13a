"""Codes about the grant or its user: the user must sign in again, or may have to."""

from worker.domain.codes.row import Group, Verdict
from worker.domain.scope import Scope

GROUPS: tuple[Group, ...] = (
    Group(
        verdict=Verdict.REAUTH,
        scope=Scope.ACCOUNT,
        sign_in_helps=True,
        advice="expired",
        text="""
        700082 ExpiredOrRevokedGrantInactiveToken: The refresh token was not used for 90 days.
        70008 ExpiredOrRevokedGrant: The refresh token or authorization code has expired or was revoked.
        50089 FlowTokenExpired: A sign-in under way took too long; start it again.
        50085 -: The account signs in through another identity provider, which wants to see it again.
        50139 SessionMissingMsaOAuth2RefreshToken: A token of an external identity provider is missing in the session.
        50078 UserStrongAuthExpired: The multi-factor sign-in is too old for the tenant's policy.
        50132 SsoArtifactInvalidOrExpired: The session ended because the password expired or was changed.
        50133 SsoArtifactRevoked: The session ended because the password expired or was changed a short time ago.
        50058 UserInformationNotProvided: No user is signed in; a new sign-in must begin.
        50197 ConflictingIdentities: It is not clear which user is meant; a new sign-in settles it.
        70019 CodeExpired: The device code has expired before its user signed in; start the sign-in again.
        70020 -: The device code has expired before its user signed in; start the sign-in again. @this project
        70018 BadVerificationCode: The user has typed a wrong device code; start the sign-in again.
        90119 InvalidUserCode: The user code of the device sign-in is empty; start the sign-in again.
        90120 InvalidDeviceFlowRequest: The device code was approved or declined before; start the sign-in again.
        50134 DeviceFlowAuthorizeWrongDatacenter: The device sign-in was approved in another region; start it again.
        """,
    ),
    Group(
        verdict=Verdict.REAUTH,
        scope=Scope.ACCOUNT,
        sign_in_helps=True,
        advice="expired",
        flags=("aged out",),
        text="""
        70043 BadTokenDueToSignInFrequency: Conditional Access limits how long a sign-in lasts (sign-in frequency).
        700081 -: The grant has reached its greatest age. @AzureAD/microsoft-authentication-library-for-js#3931
        70044 SsoArtifactExpiredDueToConditionalAccess: A policy limits how long a session lasts. @sign-in page
        70046 SsoArtifactExpiredDueToConditionalAccessReAuth: Conditional Access wants a fresh sign-in. @sign-in page
        """,
    ),
    Group(
        verdict=Verdict.REAUTH,
        scope=Scope.ACCOUNT,
        sign_in_helps=True,
        advice="day",
        flags=("aged out",),
        text="""
        700084 -: The redirect URI is registered as SPA, so the grant ends after 24 hours; register it as Web.
        """,
    ),
    Group(
        verdict=Verdict.REAUTH,
        scope=Scope.ACCOUNT,
        sign_in_helps=True,
        advice="sign_in",
        text="""
        9002327 -: The grant was made for a SPA redirect URI; register it as Web, then sign in. @O365/python-o365#846
        530036 -: A policy forbids grants of device codes; sign in with a browser. @Conditional Access pages
        700020 InteractionRequired: The grant needs its user at a browser.
        16001 UserAccountSelectionInvalid: The chosen account was refused; the user chooses again.
        16002 AppSessionSelectionInvalid: The session named by the request is not the user's.
        160011 -: The selected account is not valid; the user chooses again. @msandbu/azuread
        160021 AppSessionSelectionInvalidSessionNotExist: The session named by the request does not exist.
        50136 RedirectMsaSessionToApp: A single personal session was found; the sign-in must be started again.
        50140 KmsiInterrupt: The question whether to stay signed in was not answered.
        50143 -: The session belongs to another tenant than the request.
        50168 ChromeBrowserSsoInterruptRequired: The browser must prove the device again.
        50174 IdpLoopDetected: The identity provider sends the user in circles; use a fresh browser. @sign-in page
        50199 CmsiInterrupt: The user must confirm that this application is the one they meant.
        50201 -: Microsoft wants to show the user a message during the sign-in. @sign-ins report
        51005 TemporaryRedirect: The sign-in was sent elsewhere and must be followed in a browser.
        51006 ForceReauthDueToInsufficientAuth: The session lacks the integrated Windows sign-in.
        52004 DelegationDoesNotExistForLinkedIn: The user has not allowed access to LinkedIn.
        9002341 -: The user must allow single sign-on for this application.
        """,
    ),
    Group(
        verdict=Verdict.REAUTH,
        scope=Scope.ACCOUNT,
        sign_in_helps=True,
        advice="unlock",
        text="""
        70000 InvalidGrant: The grant is expired, malformed or revoked, or Microsoft has locked a personal account.
        """,
    ),
    Group(
        verdict=Verdict.REAUTH,
        scope=Scope.ACCOUNT,
        sign_in_helps=True,
        advice="password",
        text="""
        50173 FreshTokenNeeded: The grant was revoked, by a password reset, an administrator or the user.
        50054 InvalidPasswordLastPasswordUsed: An old password was used. @sign-in page
        50055 InvalidPasswordExpiredPassword: The user's password has expired.
        50056 -: The directory holds no password for this user.
        50064 CredentialAuthenticationError: User name or password are wrong.
        50125 PasswordResetRegistrationRequiredInterrupt: The user must reset the password or register for resets.
        50126 InvalidUserNameOrPassword: User name or password are wrong.
        50135 PasswordChangeCompromisedPassword: The account is at risk; its password must be changed.
        50144 InvalidPasswordExpiredOnPremPassword: The user's on-premises password has expired.
        50193 InvalidPassword: The password is wrong. @sign-in page
        """,
    ),
    Group(
        verdict=Verdict.REAUTH,
        scope=Scope.RESOURCE,
        sign_in_helps=True,
        advice="proof",
        text="""
        50072 UserStrongAuthEnrollmentRequiredInterrupt: The user must enrol for multi-factor authentication.
        50074 UserStrongAuthClientAuthNRequiredInterrupt: The multi-factor challenge was not passed.
        50076 UserStrongAuthClientAuthNRequired: A policy or a new location asks for multi-factor authentication.
        50079 UserStrongAuthEnrollmentRequired: The user must enrol for multi-factor authentication.
        500121 -: The user failed or ignored the multi-factor prompt. @msandbu/azuread
        50130 -: The proof that was given is not of a kind the tenant knows. @sign-ins report
        50158 ExternalSecurityChallenge: An external multi-factor provider was not satisfied.
        50181 InvalidOneTimePasscode: The one-time passcode is wrong. @sign-in page
        50182 ExpiredOneTimePasscode: The one-time passcode has expired. @sign-in page
        50184 OneTimePasscodeEntryNotExist: No one-time passcode was asked for. @sign-in page
        501811 InvalidOneTimePasscodeOTPNotGiven: The one-time passcode is missing. @sign-in page
        50203 AuthenticatorAppRegistrationRequiredInterrupt: The user must register an authenticator app. @sign-in page
        53004 ProofUpBlockedDueToRisk: The user must register for multi-factor authentication, from a safe place.
        54009 InvalidCredentialDueToMfaClassification: This proof does not count as a second factor. @sign-in page
        54010 ProofupBlockedDueToMfaClassification: The proof at hand does not allow to register another. @sign-in page
        """,
    ),
    Group(
        verdict=Verdict.REAUTH,
        scope=Scope.RESOURCE,
        sign_in_helps=True,
        advice="identity",
        text="""
        50131 ConditionalAccessFailed: Conditional Access doubts the device, the place or the behaviour.
        53010 ProofUpBlockedDueToSecurityInfoAcr: Proofs can be registered from certain places or devices only.
        53011 ProofUpBlockedDueToUserRisk: The user is at risk; an administrator of the home tenant can dismiss it.
        """,
    ),
    Group(
        verdict=Verdict.REAUTH,
        scope=Scope.RESOURCE,
        sign_in_helps=True,
        advice="device",
        text="""
        50097 DeviceAuthenticationRequired: The device must prove itself.
        50127 BrokerAppNotInstalled: A broker app must be installed on the device.
        501271 BrokerAppNotInstalledDeviceAuthenticationFailed: The device has no broker app. @sign-in page
        50129 DeviceIsNotWorkplaceJoined: The device must be joined to the organization.
        501291 DeviceIsNotWorkplaceJoinedForMamApp: The device must be registered for managed apps. @sign-in page
        50155 DeviceAuthenticationFailed: The device could not prove itself.
        50187 DeviceInformationNotProvided: The device could not prove itself.
        53000 DeviceNotCompliant: Conditional Access wants a compliant device.
        530001 DeviceNotCompliantBrowserNotSupported: The browser cannot prove the device. @sign-in page
        530002 DeviceNotCompliantDeviceCompliantRequired: Conditional Access wants a compliant device. @sign-in page
        530003 DeviceNotCompliantDeviceManagementRequired: The device must be managed. @Azure/azure-cli#29282
        53001 DeviceNotDomainJoined: Conditional Access wants a device of the organization's domain.
        530011 DeviceNotDomainJoinedBrowserNotSupported: The browser cannot prove the device. @sign-in page
        53002 ApplicationUsedIsNotAnApprovedApp: Conditional Access allows approved applications only.
        530081 RemediateDeviceStateManagedBrowserRequired: Conditional Access wants a managed browser. @sign-in page
        530082 RemediateDeviceStateWorkplaceJoinRequired: The device must be joined to the organization. @sign-in page
        700003 InvalidGrantDeviceNotFound: The device that the grant is bound to was deleted. @support articles
        """,
    ),
    Group(
        verdict=Verdict.REAUTH,
        scope=Scope.RESOURCE,
        sign_in_helps=True,
        advice="consent",
        text="""
        65001 DelegationDoesNotExist: Consent to the requested permissions is missing or was withdrawn.
        65004 UserDeclinedConsent: The user has declined consent.
        90008 TokenForItselfRequiresGraphPermission: The application needs the permission to read the user's profile.
        """,
    ),
    Group(
        verdict=Verdict.REAUTH,
        scope=Scope.ACCOUNT,
        sign_in_helps=True,
        advice="age",
        text="""
        50015 ViralUserLegalAgeConsentRequiredState: A minor's account needs the consent of its legal age group.
        """,
    ),
    Group(
        verdict=Verdict.UNPROVEN,
        scope=Scope.ACCOUNT,
        sign_in_helps=True,
        advice="sign_in",
        text="""
        54005 -: The authorization code was redeemed before; if it goes on, the sign-in page redeems codes twice.
        9002313 InvalidRequest: The stored refresh token is cut short or was not decrypted before it was imported.
        700005 InvalidGrantRedeemAgainstWrongTenant: The authorization code belongs to another tenant.
        501481 -: The code verifier does not match the challenge of the authorization request.
        50147 MissingCodeChallenge: The code challenge of the authorization request has a wrong size.
        501491 InvalidCodeChallengeMethodInvalidSize: The code challenge of the authorization request has a wrong size.
        50148 -: The code verifier does not match the challenge of the authorization request. @sign-ins report
        50011 InvalidReplyTo: The redirect URI of the sign-in is not registered; add it to the app registration.
        500113 -: The app registration has no redirect URI. @OneDrive/onedrive-sample-apibrowser-dotnet#27
        900971 -: The sign-in names no redirect URI.
        70004 InvalidRedirectUri: The redirect URI of the sign-in is not registered; add it to the app registration.
        90007 InvalidSessionId: The session named by the request cannot be read.
        90013 InvalidUserInput: Something that the user has typed is not valid.
        90016 MissingRequiredClaim: A claim is missing in the presented token.
        90101 InvalidEmailAddress: The sign-in name is not an e-mail address.
        50027 InvalidJwtToken: A presented token is malformed, expired or from another issuer.
        500133 -: A presented assertion has expired; get a new one before it is used.
        """,
    ),
)
