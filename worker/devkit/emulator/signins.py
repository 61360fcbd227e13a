"""Sign-ins in progress: authorization codes and device codes, each valid once and for some minutes."""

import base64
import hashlib
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from worker.devkit.emulator.oauth_errors import refused

CODE_LIFETIME = timedelta(minutes=10)
DEVICE_CODE_LIFETIME = timedelta(minutes=15)


@dataclass(slots=True)
class AuthorizationCode:
    email: str
    client_id: str
    redirect_uri: str
    scope: str
    issued_at: datetime
    nonce: str | None = None
    challenge: str | None = field(default=None, repr=False)
    used: bool = False

    def check(self, form: Mapping[str, str], client_id: str, now: datetime) -> None:
        if self.client_id != client_id or self.redirect_uri != form.get("redirect_uri"):
            raise refused("70000", message="The code was issued for another client or redirect URI.")
        if self.used:
            raise refused("54005")
        if now - self.issued_at >= CODE_LIFETIME:
            raise refused("70008")
        if self.challenge is not None and self.challenge != _challenge(form.get("code_verifier", "")):
            raise refused("501481")


@dataclass(slots=True)
class DeviceCode:
    device_code: str = field(repr=False)
    user_code: str = field(repr=False)
    client_id: str
    scope: str
    issued_at: datetime
    email: str | None = None
    used: bool = False

    def expired(self, now: datetime) -> bool:
        return self.used or now - self.issued_at >= DEVICE_CODE_LIFETIME


class SignIns:
    """All sign-ins in progress. Not thread-safe."""

    def __init__(self) -> None:
        self._codes: dict[str, AuthorizationCode] = {}
        self._devices: dict[str, DeviceCode] = {}

    def remember(self, code: AuthorizationCode) -> str:
        value = "1.A" + secrets.token_urlsafe(600)
        self._codes[value] = code
        return value

    def start_device(self, client_id: str, scope: str, now: datetime) -> DeviceCode:
        user_code = "".join(secrets.choice(string.ascii_uppercase) for _ in range(9))
        device = DeviceCode(secrets.token_urlsafe(150), user_code, client_id, scope, now)
        self._devices[device.device_code] = device
        return device

    def approve(self, user_code: str, email: str, now: datetime) -> None:
        """Sign the user in who has entered a device code. Raises KeyError if no sign-in waits for this code."""
        wanted = user_code.strip().upper()
        for device in self._devices.values():
            if device.user_code == wanted and not device.expired(now):
                device.email = email
                return
        raise KeyError("no sign-in is waiting for this code")

    def redeem_code(self, form: Mapping[str, str], client_id: str, now: datetime) -> AuthorizationCode:
        """Use an authorization code. Raises Refused."""
        code = self._codes.get(form.get("code", ""))
        if code is None:
            raise refused("70000")
        code.check(form, client_id, now)
        code.used = True
        return code

    def redeem_device(self, form: Mapping[str, str], client_id: str, now: datetime) -> tuple[str, DeviceCode]:
        """Use a device code. Returns the address of the user who has entered it. Raises Refused."""
        device = self._devices.get(form.get("device_code", ""))
        if device is None or device.client_id != client_id:
            raise refused("70018")
        if device.expired(now):
            raise refused("70020")
        if device.email is None:
            raise refused("70016")
        device.used = True
        return device.email, device

    def email_of(self, form: Mapping[str, str]) -> str | None:
        if code := self._codes.get(form.get("code", "")):
            return code.email
        device = self._devices.get(form.get("device_code", ""))
        return None if device is None else device.email


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
