"""The same for asyncio, over aioimaplib and aiosmtplib: needs the extra `aio`.

aioimaplib is under the GPL, version 3; run worker.mail in threads where that does not fit.
"""

try:
    from worker.mail.aioimap import AioImapSession, open_imap
    from worker.mail.aiosmtp import AioSmtpSession, open_smtp
except ModuleNotFoundError as missing:
    message = f"{missing.name} is not installed: pip install 'token-refresh-worker[aio]'"
    raise ImportError(message) from None

__all__ = ["AioImapSession", "AioSmtpSession", "open_imap", "open_smtp"]
