"""A mail product's use of the client. `make types` checks it with mypy --strict against the installed package."""

import asyncio

from worker.client import (
    AccessToken,
    AccountError,
    AsyncTokenClient,
    AttentionNeeded,
    BackingOff,
    MailAccount,
    NeedsUser,
    TokenClient,
    TokenRefused,
    Unavailable,
    WorkerError,
)


def authorization(client: TokenClient, email: str) -> str | None:
    """The header for a call of Microsoft Graph; None if the user was informed of a problem."""
    try:
        token: AccessToken = client.get(email, min_ttl=60)
    except NeedsUser as error:
        tell(email, error.advice, claims=error.claims)
    except BackingOff as error:
        tell(email, f"{error.advice} ({error.retry_after.total_seconds():.0f} s)")
    except AccountError as error:
        tell(email, error.advice)
    except Unavailable as error:
        tell(email, f"Please try again shortly ({error.code}).")
    else:
        return f"Bearer {token.value}"
    return None


def another(client: TokenClient, rejected: AccessToken) -> AccessToken | None:
    """The next token, after the mail server has rejected one."""
    try:
        return client.report_rejected(rejected.email, rejected.version)
    except TokenRefused as error:
        tell(error.email, error.advice)
        return None


def describe(account: MailAccount) -> str:
    """Where to log in, and how."""
    servers = account.servers
    until = account.token.expires_at.isoformat() if account.token else "never"
    return f"{account.email} imap://{servers.imap_host}:{servers.imap_port} oauth={account.use_oauth} until {until}"


def lives(client: TokenClient, emails: list[str]) -> dict[str, str]:
    """A page that lists mailboxes."""
    found: dict[str, AccessToken | WorkerError] = client.get_many(emails)
    return {
        email: each.expires_at.isoformat() if isinstance(each, AccessToken) else each.code
        for email, each in found.items()
    }


async def listen(client: AsyncTokenClient) -> None:
    """Write to the users whose mailboxes need them."""
    async for event in client.watch(every=30):
        needed: AttentionNeeded = event
        tell(needed.email, needed.advice, claims=needed.claims)


def tell(email: str, sentence: str, *, claims: str | None = None) -> None:
    """The application's own way to its users."""
    print(email, sentence, "(sign-in with claims)" if claims else "")  # noqa: T201 - an example


async def main() -> None:
    async with AsyncTokenClient.from_env() as client:
        await client.get("ann@contoso.com")
        await listen(client)


if __name__ == "__main__":
    asyncio.run(main())
