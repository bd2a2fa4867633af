"""The wheel holds three packages with their types, and nothing called plugins or collector."""

import importlib.util
import sys
from pathlib import Path

for name in ("zmon", "zmon_collector", "zmon_plugins"):
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None, name
    assert "site-packages" in spec.origin, spec.origin
    assert (Path(spec.origin).parent / "py.typed").exists(), f"{name} has no py.typed"
static = Path(importlib.util.find_spec("zmon_collector").origin).parent / "dashboard/web/static"
assert {"index.html", "app.css", "main.js"} <= {path.name for path in static.iterdir()}, "the page's files"
site = Path(importlib.util.find_spec("zmon").origin).parent.parent
assert not (site / "plugins").exists() and not (site / "collector").exists() and not (site / "tests").exists()
sys.stdout.write("three packages, typed\n")
