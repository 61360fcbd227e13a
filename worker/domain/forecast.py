"""When a grant will die if nothing changes. Pure.

Sources: learn.microsoft.com, "Refresh tokens in the Microsoft identity platform" (90 days of inactivity; 24 hours for a
redirect URI of type SPA) and "Configure adaptive session lifetime policies" (sign-in frequency).
"""

from datetime import datetime, timedelta

from worker.domain.credential import Account

INACTIVITY = timedelta(days=90)  #: a refresh token not used for so long is dead; every use starts the count anew


def dies_at(account: Account) -> datetime | None:
    """The earlier of two ends: inactivity, and the fixed age at which the account's last grant was ended.

    None if there is no grant, or nobody knows since when. The second is known only once it has happened: by sign-in
    frequency or as SPA.
    """
    signed_in_at, lifetime = account.signed_in_at, account.grant_lifetime
    used_at = [instant for instant in (signed_in_at, account.last_refreshed_at) if instant is not None]
    if account.refresh_token is None or not used_at:
        return None
    by_inactivity = max(used_at) + INACTIVITY
    if signed_in_at is None or lifetime is None:
        return by_inactivity
    return min(by_inactivity, signed_in_at + lifetime)
