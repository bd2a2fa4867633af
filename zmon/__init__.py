"""zmon: monitor a machine-learning model in production from inside its process, without disturbing it.

The public names are the publisher, for services, and the contract, for authors of plugins. Importing this package
loads pyzmq, msgpack and numpy, and nothing heavier.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zmon._transport.ledger import Stats
from zmon._watch import watch
from zmon.batch import Batch, Schema
from zmon.errors import ConfigurationError, MissingExtraError, RetryLater, WireError, ZmonError
from zmon.publisher import Publisher

if TYPE_CHECKING:
    from zmon.bases import MetricBase, SinkBase
    from zmon.contract import Context, Ledger, Metric, Point, Refused, Report, RowCounts, Series, Sink, Value, Window
    from zmon.points import read_points
    from zmon.reference import Profile, profile

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "ConfigurationError",
    "Context",
    "Ledger",
    "Metric",
    "MetricBase",
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
    "SinkBase",
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


# Names that a model's process does not need are imported on first use.
_LATER = {
    **dict.fromkeys(("MetricBase", "SinkBase"), "zmon.bases"),
    **dict.fromkeys(("Context", "Ledger", "Metric", "Point", "Refused", "Report", "RowCounts"), "zmon.contract"),
    **dict.fromkeys(("Series", "Sink", "Value", "Window"), "zmon.contract"),
    "read_points": "zmon.points",
    **dict.fromkeys(("Profile", "profile"), "zmon.reference"),
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
