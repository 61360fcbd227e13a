"""A Django site with django-allauth: makes its tables in a Postgres, stores tokens, and dumps them to standard output.

Run as a program with the URL of the database, and a JSON object of addresses and tokens.
"""

import json
import sys
from datetime import UTC, datetime
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.core.management import call_command


def main(url: str, granted: dict[str, dict[str, str]]) -> None:
    parts = urlsplit(url)
    settings.configure(
        SECRET_KEY="not used",
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": parts.path.lstrip("/"),
                "HOST": parts.hostname,
                "PORT": parts.port,
                "USER": parts.username,
                "PASSWORD": parts.password,
            }
        },
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sites",
            "allauth",
            "allauth.account",
            "allauth.socialaccount",
            "allauth.socialaccount.providers.microsoft",
        ],
        MIDDLEWARE=["allauth.account.middleware.AccountMiddleware"],
        ROOT_URLCONF="allauth.urls",
    )
    django.setup()
    from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken  # noqa: PLC0415
    from django.contrib.auth.models import User  # noqa: PLC0415

    call_command("migrate", verbosity=0)
    app = SocialApp.objects.create(provider="microsoft", name="Mail", client_id=sys.argv[3], secret="s")
    for email, tokens in granted.items():
        user = User.objects.create(username=email, email=email)
        account = SocialAccount.objects.create(
            user=user,
            provider=tokens["provider"],
            uid=email,
            extra_data={"mail": email, "userPrincipalName": tokens["principal"]},
        )
        SocialToken.objects.create(
            app=app,
            account=account,
            token=tokens["access_token"],
            token_secret=tokens["refresh_token"],
            expires_at=datetime.fromtimestamp(float(tokens["expires_at"]), UTC),
        )
    call_command("dumpdata", "socialaccount", "auth.user")


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
