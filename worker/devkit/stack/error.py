"""The error of an embedded server, as one sentence for the person who started it."""


class StackError(Exception):
    """The message says what to install, to free or to set. It contains no password."""
