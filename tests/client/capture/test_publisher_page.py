"""docs/publisher.md: every form that it lists is taken, and its tables hold exactly the reasons that the code has."""

from __future__ import annotations

import re
import time
from collections import namedtuple
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.capture import capture, convert
from tests.support.frameworks import require
from zmon._capture import labels, times
from zmon._capture.assembler import REASONS
from zmon._transport.ledger import Stats

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/publisher.md").read_text()
TABLES = ("Rejected", "Degraded", "Answered by the collector", "Dropped")
CODE = [
    *(ROOT / "zmon/_capture").glob("*.py"),
    *(ROOT / "zmon/_watch").glob("*.py"),
    *(ROOT / "zmon/_transport").glob("*.py"),
    *(ROOT / "zmon" / name for name in ("publisher.py", "mlwatcher.py", "keras.py")),
    *(ROOT / "collector/zmon_collector/ingest").glob("[lrv]*.py"),
    *(ROOT / "collector/zmon_collector/ingest" / name for name in ("schema_cache.py", "ingestor.py")),
    ROOT / "collector/zmon_collector/windows/manager.py",
]
WORD = r'"([a-z]+(?:_[a-z]+)*)"'
RAISED = re.compile(rf"(?:Rejected|WireError|Loss|Unusable)\(\s*{WORD}|\.(?:add|reject|refuse|degrade)\(\s*{WORD},")
ANSWERED = re.compile(rf"\.(?:refuse|degrade|answer)\([^\n]*?, {WORD}, ")
COMPOSED = re.compile(r'Rejected\(\s*f"\{what\}_([a-z_]+)"')
NOT_REASONS = {"dtype", "send", "open", "position", "columns", "lost", "schema_unknown", "stream_unknown"}


def rows(heading: str, level: str = "###") -> list[list[str]]:
    """The cells of the table under a heading."""
    (section,) = re.findall(rf"^{level} {heading}\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S)
    table = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


def reasons_of_the_page() -> set[str]:
    return {reason for name in TABLES for row in rows(name) for reason in re.findall(r"`([a-z_]+)`", row[0])}


def reasons_of_the_code() -> set[str]:
    found = {"buffer_full", "closed", "other", "internal", "probabilities_range"}
    found |= {reason for faults in labels.FAULTS.values() for reason in faults[:2]}
    found |= {reason for reason, _ in times.FAULTS.values()}
    for path in CODE:
        text = path.read_text()
        found |= {word for words in RAISED.findall(text) for word in words}
        found |= set(ANSWERED.findall(text))
        suffixes = COMPOSED.findall(text)
        nouns = ("probabilities", "predictions", "labels", "inputs", "ids", "segments", "timestamps")
        for noun, suffix in product(("label", "prediction"), suffixes):
            found |= {f"{noun}_{suffix}"} if suffix == "ambiguous" else set()
        for noun, suffix in product(nouns, set(suffixes) - {"ambiguous"}):
            reason = f"{noun}_{suffix}"
            found.add("segments_invalid" if noun == "segments" else REASONS.get(reason, reason))
    return {reason for reason in found if reason and reason not in NOT_REASONS}


def test_the_tables_hold_every_reason_with_its_meaning_and_its_remedy() -> None:
    assert reasons_of_the_page() == reasons_of_the_code()
    for name in TABLES:
        assert all(all(row) for row in rows(name)), name
    assert {"rejected", "degraded", "dropped"} <= set(Stats.__dataclass_fields__)


FORMS: list[tuple[str, str, str]] = []
for argument, form, example in rows("What it takes", "##"):
    FORMS.append((argument or FORMS[-1][0], form, example.strip("`")))


@pytest.mark.parametrize(("argument", "form", "example"), FORMS, ids=[f"{each[0]}: {each[2]}" for each in FORMS])
def test_every_form_of_the_table_is_taken(argument: str, form: str, example: str) -> None:
    p = np.array([[0.9, 0.1], [0.2, 0.8]])
    names: dict[str, Any] = {"np": np, "p": p, "time": time, "Row": namedtuple("Row", "ok fraud")}
    if "pd." in example:
        names["pd"] = require("pandas")
    if "scipy" in example:
        names["scipy"] = require("scipy")
        require("scipy.sparse")
    value = eval(example, names)  # noqa: S307 - the page is the project's own
    regression = "regression" in form
    given = {argument: value}
    if argument not in ("probabilities", "predictions"):
        given["probabilities"] = p[:1] if "one row" in form else p
    one = capture(None if regression else ("ok", "fraud"), task="regression" if regression else "classification")
    made = convert(one, **given)
    assert made.pieces
    assert (list(made.rejected), list(made.degraded)) == ([], [])
    assert argument in {name for layout, _, _ in made.pieces for name, _, _ in layout.arrays} | {"inputs", "timestamps"}
