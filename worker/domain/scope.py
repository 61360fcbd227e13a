"""How far an answer of Microsoft reaches."""

import enum


class Scope(enum.StrEnum):
    """How far an answer reaches."""

    ACCOUNT = "account"
    RESOURCE = "resource"  #: what the account requests; only rows of codes/ have it, outcomes have TENANT or ACCOUNT
    TENANT = "tenant"
    CLIENT = "client"  #: the app registration
    SERVICE = "service"  #: the identity platform
    NETWORK = "network"  #: the way from this process to the platform

    @property
    def is_about_others(self) -> bool:
        """Whether the outcome says something about further accounts, those of the tenant at least."""
        return self is not Scope.ACCOUNT

    @property
    def is_about_registration(self) -> bool:
        """Whether the outcome says something about every account of the app registration."""
        return self not in (Scope.ACCOUNT, Scope.TENANT)

    @property
    def is_network(self) -> bool:
        """Whether only the way from this machine to Microsoft is concerned."""
        return self is Scope.NETWORK
