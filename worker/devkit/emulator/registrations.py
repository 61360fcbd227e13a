"""App registrations: the clients and their authentication."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hmac import compare_digest

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from worker.devkit.emulator.oauth_errors import Refused, refused

DEFAULT_CLIENT_ID = "5d1b1a7e-0c4b-4a5e-9a55-3f6f2c9d7e10"
DEFAULT_CLIENT_SECRET = "emulator-secret"
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class FederatedCredential:
    """Tokens of another issuer that are accepted in the place of a secret. `certificate` is PEM."""

    issuer: str
    subject: str
    certificate: bytes = field(repr=False)
    audience: str = "api://AzureADTokenExchange"


@dataclass(frozen=True, slots=True)
class Registration:
    """A client. It may have several secrets at once, so that a secret can be rotated.

    `certificates` are PEM. If there are none, any assertion that names the client is accepted. `public` allows sign-ins
    without a credential, whose refresh tokens need no credential either.
    """

    client_id: str = DEFAULT_CLIENT_ID
    secrets: tuple[str, ...] = field(default=(DEFAULT_CLIENT_SECRET,), repr=False)
    certificates: tuple[bytes, ...] = field(default=(), repr=False)
    federated: tuple[FederatedCredential, ...] = ()
    public: bool = True


class Registrations:
    def __init__(self, registrations: Iterable[Registration]) -> None:
        self._by_id = {each.client_id: each for each in registrations}

    def register(self, registration: Registration) -> None:
        self._by_id = self._by_id | {registration.client_id: registration}

    def find(self, client_id: str | None) -> Registration:
        """The registration. Raises Refused if the id is missing or unknown."""
        if not client_id:
            raise refused("900144", message="The request body must contain the parameter 'client_id'.")
        if client_id not in self._by_id:
            raise refused("700016")
        return self._by_id[client_id]

    def authenticate(self, form: Mapping[str, str], token_endpoint: str, now: datetime) -> tuple[Registration, bool]:
        """The client, and whether it has authenticated itself. Raises Refused if its credential is wrong."""
        client = self.find(form.get("client_id"))
        if secret := form.get("client_secret"):
            _check_secret(client, secret)
        elif assertion := form.get("client_assertion"):
            if form.get("client_assertion_type") != _ASSERTION_TYPE:
                raise refused("900144", message="The parameter 'client_assertion_type' is missing or wrong.")
            _check_assertion(client, assertion, token_endpoint, now)
        elif not client.public:
            raise refused("7000218")
        else:
            return client, False
        return client, True


def _check_secret(client: Registration, secret: str) -> None:
    if not client.secrets and not client.certificates:
        raise refused("700025")
    if not any(compare_digest(secret.encode(), each.encode()) for each in client.secrets):
        raise refused("7000215")


def _check_assertion(client: Registration, assertion: str, token_endpoint: str, now: datetime) -> None:
    if client.federated:
        _check_federated(client.federated, assertion, now)
        return
    claims = _verified(client, assertion)
    if not claims.get("iss") == claims.get("sub") == client.client_id:
        raise refused("50012")
    if claims.get("aud") != token_endpoint:
        raise refused("50012", message="The audience of the client assertion is not this token endpoint.")
    _check_expiry(claims, now)


def _check_federated(credentials: Iterable[FederatedCredential], assertion: str, now: datetime) -> None:
    for each in credentials:
        try:
            claims = _signed_by(each.certificate, assertion)
        except jwt.PyJWTError:
            raise _malformed() from None
        if claims is None or claims.get("iss") != each.issuer:
            continue
        if claims.get("sub") != each.subject:
            raise refused("700213")
        if claims.get("aud") == each.audience:
            _check_expiry(claims, now)
            return
    raise refused("70021")


def _check_expiry(claims: Mapping[str, object], now: datetime) -> None:
    expiry = claims.get("exp")
    if not isinstance(expiry, int | float) or expiry <= now.timestamp():
        raise refused("700024")


def _verified(client: Registration, assertion: str) -> Mapping[str, object]:
    # The library would compare `exp` with the real time. The caller compares it with the emulator's clock.
    unverified = {"verify_signature": False}
    try:
        if not client.certificates:
            return jwt.decode(assertion, options=unverified)  # type: ignore[arg-type]
        for pem in client.certificates:
            if (claims := _signed_by(pem, assertion)) is not None:
                return claims
    except jwt.PyJWTError:
        raise _malformed() from None
    raise refused("700027")


def _malformed() -> Refused:
    return refused("50012", message="The client assertion is malformed.")


def _signed_by(pem: bytes, assertion: str) -> Mapping[str, object] | None:
    key = x509.load_pem_x509_certificate(pem).public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        return None
    lenient = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}
    try:
        return jwt.decode(assertion, key, ["RS256", "PS256"], options=lenient)  # type: ignore[arg-type]
    except jwt.InvalidSignatureError:
        return None
