"""The generated part of docs/performance.md: targets and tables from the committed figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.bench import peers, suite, targets

PAGE = Path(__file__).parents[2] / "docs/performance.md"
FIRST, LAST = "<!-- figures: made by `make bench ARGS=--keep` -->", "<!-- end of figures -->"


def body(figures: dict[str, Any]) -> str:
    """What stands between the marks."""
    others = peers.show(figures["peers"])
    if "machine" not in figures:
        return "\n\n".join(
            ["No run is committed yet: `make bench ARGS=--keep`.", *(table.markdown() for table in others)]
        )
    machine = figures["machine"]
    where = (
        f"Measured on {machine['cpus']} CPUs ({machine['machine']}), Python {machine['python']}, NumPy "
        f"{machine['numpy']}, libzmq {machine['libzmq']}."
    )
    tables = [targets.show(figures), *suite.tables(figures), *others]
    return "\n\n".join([where, *(table.markdown() for table in tables)])


def page(text: str, figures: dict[str, Any]) -> str:
    """The page with the figures in it; prose around them stays."""
    before, _, rest = text.partition(FIRST)
    _, _, after = rest.partition(LAST)
    return f"{before}{FIRST}\n\n{body(figures)}\n\n{LAST}{after}"


def keep(figures: dict[str, Any]) -> None:
    """Commit the figures of a whole run."""
    suite.FIGURES.write_text(json.dumps(figures, indent=1, default=float) + "\n")
    PAGE.write_text(page(PAGE.read_text(), suite.kept()))
