"""The memory of the model's process stays bounded, whatever is published faster than it can be sent."""

from __future__ import annotations

import pytest

from tests.host.conftest import Start
from tests.support.collectors import Collector

LONG_STRINGS = """
import resource
import pandas as pd, polars as pl, pyarrow as pa

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

def text():
    return "".join(["x" * 10**6, str(random.random())])

MAKE = {
    "pandas": lambda: pd.DataFrame({"a": [text()], "b": [1.0]}),
    "pandas objects": lambda: pd.DataFrame({"a": [text()], "b": [1.0]}, dtype=object),
    "array of objects": lambda: np.array([[text(), 1.0]], dtype=object),
    "polars": lambda: pl.DataFrame({"a": [text()], "b": [1.0]}),
    "arrow": lambda: pa.table({"a": [text()], "b": [1.0]}),
    "list": lambda: [[text(), 1.0]],
    "dict": lambda: {"a": text(), "b": 1.0},
}
make = MAKE[sys.argv[2]]
one = publisher(buffer_bytes=2**20)
for _ in range(20):
    one.publish(ONE, make())
one.flush(0.5)
before = peak()
sys.setswitchinterval(10.0)  # the engine gets the interpreter only when this thread gives it away
for _ in range(500):
    one.publish(ONE, make())
report(grown=peak() - before, stats=one.stats)
one.close(0)
"""


@pytest.mark.parametrize("form", ["pandas", "pandas objects", "array of objects", "polars", "arrow", "list", "dict"])
def test_long_strings_in_a_small_ring(form: str, collector: Collector, child: Start) -> None:
    """Half a gigabyte of them, in a ring of one megabyte."""
    result = child(collector.data, LONG_STRINGS, form).result()
    assert result["stats"]["sum"] == 520
    assert result["grown"] < 60, "megabytes"
