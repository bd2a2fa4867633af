"""The `zmon` command: runs the collector's command line, or says how to install what is missing."""

from __future__ import annotations

import importlib
import sys

NEEDED = frozenset(
    ("click", "plotly", "pluggy", "prometheus_client", "requests", "rich", "scipy", "sklearn", "starlette", "uvicorn")
)


def main() -> None:
    """Run the command line."""
    try:
        # By name, because this package must import neither the collector nor the plugins.
        cli = importlib.import_module("zmon_collector.cli.main")
    except ImportError as error:
        missing = (error.name or "pluggy").partition(".")[0]
        if missing not in NEEDED:
            raise
        sys.stderr.write(f'zmon: {missing} is not installed. Install it with: pip install "zmon-agent[collector]"\n')
        sys.exit(3)
    cli.main()
