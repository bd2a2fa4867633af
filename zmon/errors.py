"""Every error zmon raises on purpose, as a tree::

ZmonError
├── ConfigurationError (also a ValueError)    a constructor argument or a configuration file is wrong
├── MissingExtraError (also an ImportError)   an optional part of the distribution is not installed
├── WireError                                 bytes that are not a zmon message; has the reason
├── Rejected                                  a batch that cannot be captured; never leaves the publisher
└── RetryLater                                raised by a sink to get the same report again
"""

from __future__ import annotations


class ZmonError(Exception):
    """Base of all errors zmon raises on purpose."""


class ConfigurationError(ZmonError, ValueError):
    """A constructor argument or a configuration file is wrong; the message says what, where and how to fix it."""


class MissingExtraError(ZmonError, ImportError):
    """An optional part is not installed; the message contains the exact ``pip install`` command."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f'{what} is not installed. Install it with: pip install "zmon-agent[{extra}]"')


class WireError(ZmonError):
    """Bytes that are not a zmon message.

    Parameters
    ----------
    reason : str
        A short stable code under which the receiver counts it, for instance ``"header"`` or ``"dtype"``.
    detail : str
        Explanation for people.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Rejected(ZmonError):  # noqa: N818 - a verdict on a batch, not a fault of the program
    """A batch that cannot be captured: counted by reason, logged, never raised into the model."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class RetryLater(ZmonError):  # noqa: N818 - part of the public contract under this name
    """Raised by ``Sink.write`` to get the same report again.

    Parameters
    ----------
    message : str
        The reason, for the log.
    after : float
        Seconds to wait.
    """

    def __init__(self, message: str = "", *, after: float = 1.0) -> None:
        super().__init__(message or f"retry after {after} s")
        self.after = after
