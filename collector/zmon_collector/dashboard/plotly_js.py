"""The path of plotly's script in the installed package, so that nothing is fetched from elsewhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from zmon.errors import MissingExtraError


def plotly_js() -> Path:
    """Return the path of plotly.min.js.

    Raises
    ------
    MissingExtraError
        plotly is not installed.
    """
    spec = importlib.util.find_spec("plotly")
    if spec is None or spec.origin is None:
        raise MissingExtraError("plotly", "collector")
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"
