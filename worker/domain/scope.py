"""Whom an answer of Microsoft concerns."""

import enum


class Scope(enum.StrEnum):
    """How far an answer reaches."""

    ACCOUNT = "account"
    RESOURCE = "resource"  #: what the account asks for; only rows of codes/ say so, outcomes say TENANT or ACCOUNT
    TENANT = "tenant"
    CLIENT = "client"  #: the app registration
    SERVICE = "service"  #: the identity platform
    NETWORK = "network"  #: the way from the worker to it
