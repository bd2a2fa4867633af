"""zmon: watch a machine-learning model in production from inside its process, without it noticing.

The public names are the publisher (what a service calls) and the contract (what a plugin author implements).
Importing this package loads pyzmq, msgpack and numpy, and nothing heavier.
"""

from typing import TYPE_CHECKING, Any

from zmon.batch import Batch, Schema
from zmon.contract import Context, Ledger, Metric, Point, Refused, Report, RowCounts, Series, Sink, Value, Window
from zmon.counters import Stats
from zmon.errors import ConfigurationError, MissingExtraError, RetryLater, WireError, ZmonError
from zmon.points import read_points
from zmon.publisher import Publisher
from zmon.watch import watch

if TYPE_CHECKING:
    from zmon.reference import Profile, profile

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "ConfigurationError",
    "Context",
    "Ledger",
    "Metric",
    "MissingExtraError",
    "Point",
    "Profile",
    "Publisher",
    "Refused",
    "Report",
    "RetryLater",
    "RowCounts",
    "Schema",
    "Series",
    "Sink",
    "Stats",
    "Value",
    "Window",
    "WireError",
    "ZmonError",
    "__version__",
    "profile",
    "read_points",
    "watch",
]


def __getattr__(name: str) -> Any:
    """Reference profiles are for whoever makes one: a model's process need not load them."""
    if name in ("Profile", "profile"):
        from zmon import reference

        return getattr(reference, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
