"""Mailboxes, spans of time and log lines that many tests share."""

from datetime import timedelta

ANN, BOB = "ann@contoso.com", "bob@fabrikam.com"
CAT, DAN = "cat@contoso.com", "dan@contoso.com"

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

# The log lines that operators search for. Their text is a contract.
PERSISTED = "Token persisted to database"
RECOVERED = "Recovered credentials from database and cached in Redis"
NOT_PERSISTED = "Error persisting tokens to database"
