"""When a grant will die if nothing changes. Pure.

Sources: learn.microsoft.com, "Refresh tokens in the Microsoft identity platform" (90 days of inactivity; 24 hours for a
redirect URI of type SPA) and "Configure adaptive session lifetime policies" (sign-in frequency).
"""

from datetime import datetime, timedelta

from worker.domain.credential import Account

INACTIVITY = timedelta(days=90)  #: a refresh token not used for so long is dead; every use starts the count anew


def dies_at(account: Account) -> datetime | None:
    """The earlier of two ends: inactivity, and the fixed age at which the account's last grant was ended.

    None if there is no grant. The second is known only once it has happened: by sign-in frequency or as SPA.
    """
    signed_in_at, lifetime = account.signed_in_at, account.grant_lifetime
    if account.refresh_token is None or signed_in_at is None:
        return None
    used_at = max(signed_in_at, account.last_refreshed_at or signed_in_at)
    by_age = signed_in_at + lifetime if lifetime is not None else None
    return min(used_at + INACTIVITY, by_age or used_at + INACTIVITY)
