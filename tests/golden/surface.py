"""List the public surface: what people outside this repository rely on, found through the public doors alone.

``python -m tests.golden.surface`` writes the list; tests/golden/test_surface.py compares the code with it.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import numpy as np

import zmon
from tests import pages

KEPT = Path(__file__).parent / "0.1.0" / "surface.json"
MODULES = ("zmon.contract", "zmon.testing", "zmon.hooks", "zmon.mlwatcher", "zmon.keras", "zmon.points", "zmon.errors")


def surface(folder: Path) -> dict[str, Any]:
    """Return everything by the door through which it is reached; `folder` is for a collector that is started."""
    return {
        "zmon": {name: _described(getattr(zmon, name)) for name in zmon.__all__ if not name.startswith("__")},
        **{name: dict(_members(name)) for name in MODULES},
        "commands": dict(_commands()),
        "configuration": dict(_keys()),
        "series": dict(_series()),
        **_collector(folder),
    }


def _described(thing: Any) -> Any:
    """Describe a function by its signature, a class by its constructor, methods and fields."""
    if inspect.isclass(thing):
        members = {
            name: _described(member)
            for name, member in inspect.getmembers(thing, lambda m: inspect.isfunction(m) or isinstance(m, property))
            if not name.startswith("_") and not _inherited(thing, name)
        }
        values = {each.name: _default(each) for each in fields(thing)} if is_dataclass(thing) else {}
        return {"call": _signature(thing), **members, **({"fields": values} if values else {})}
    if callable(thing):
        return _signature(thing)
    return "property" if isinstance(thing, property) else type(thing).__name__


def _inherited(kind: type, name: str) -> bool:
    owner = next(each for each in kind.__mro__ if name in vars(each))
    return owner.__module__.partition(".")[0] not in ("zmon", "zmon_collector", "zmon_plugins")


def _signature(thing: Any) -> dict[str, str]:
    """Return parameters with their kinds and defaults; annotations may become more exact."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {
        each.name: each.kind.name + ("" if each.default is each.empty else f" = {_shown(each.default)}")
        for each in parameters
    }


def _shown(default: Any) -> str:
    return "a function" if callable(default) else repr(default)


def _default(each: Any) -> str:
    if each.default is not MISSING:
        return repr(each.default)
    return "required" if each.default_factory is MISSING else "made anew"


def _members(name: str) -> Iterator[tuple[str, Any]]:
    module = import_module(name)
    for member, thing in vars(module).items():
        if not member.startswith("_") and getattr(thing, "__module__", None) == name:
            yield member, _described(thing)


def _commands() -> Iterator[tuple[str, Any]]:
    """List each command's parameters. Wording is held by docs/commands.md, which is made from the help."""
    for context, command in pages.every_command("zmon", pages.cli):
        yield (
            context.command_path,
            {
                each.name or "": {
                    "spelled": sorted([*each.opts, *each.secondary_opts])
                    if isinstance(each, click.Option)
                    else "argument",
                    "type": each.type.name,
                    "required": each.required,
                    "default": repr(each.default) if isinstance(each.default, str | int | float | bool) else "",
                }
                for each in command.params
            },
        )


def _keys() -> Iterator[tuple[str, Any]]:
    for section in pages.SECTIONS:
        yield section.__name__, {each.name: _default(each) for each in fields(section)}


def _series() -> Iterator[tuple[str, Any]]:
    """Read the table of docs/metrics.md, which is made from what metrics declare."""
    for line in pages.metrics().splitlines():
        if line.startswith("| ") and not line.startswith("| what"):
            what, keys, stats, _, preset = (cell.strip() for cell in line.strip("|").split(" | "))
            yield f"{what} {keys}".strip(), {"stats": stats, "preset": preset}


def _collector(folder: Path) -> dict[str, Any]:
    """List what a running collector answers over HTTP after one window of two agents."""
    with _running(folder) as (endpoint, page):
        for agent in ("a", "b"):
            with zmon.Publisher("m", classes=["no", "yes"], collector=endpoint, agent_id=agent) as publisher:
                publisher.publish(np.full((8, 2), 0.5), labels=[0, 1] * 4, inputs=np.ones((8, 2)))
                assert publisher.flush(60)
        while "zmon_model_accuracy" not in (metrics := _get(f"{page}metrics")):
            pass  # the answer takes its time; the window is one second
        health = json.loads(_get(f"{page}api/v1/health"))
        newest = health.get("now", health)
        document = json.loads(_get(f"{page}openapi.json"))
    return {
        "/metrics": {
            name: kind
            for _, _, name, kind in (line.split() for line in metrics.splitlines() if line.startswith("# TYPE"))
        },
        "health": {name: type(value).__name__ for name, value in newest.items()},
        "openapi": {
            f"{method} {path}": {
                "parameters": {
                    each["name"]: [each["required"], each["schema"]] for each in operation.get("parameters", [])
                },
                "responses": {
                    code: sorted(answer.get("content", {})) for code, answer in operation["responses"].items()
                },
            }
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        },
    }


@contextmanager
def _running(folder: Path) -> Iterator[tuple[str, str]]:
    command = "import sys; from zmon._main import main; sys.argv[0] = 'zmon'; main()"
    arguments = ["--bind", f"ipc://{folder}/data", "--window", "1s", "--data-dir", str(folder), "--web", "127.0.0.1:0"]
    with subprocess.Popen(
        [sys.executable, "-c", command, "collect", *arguments], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            page = next(line.split()[-1] for line in process.stderr if "live page on" in line)
            next(line for line in process.stderr if "collecting on" in line)
            yield f"ipc://{folder}/data", page
        finally:
            process.terminate()
            process.stderr.read()


def _get(url: str) -> str:
    with urllib.request.urlopen(url) as answer:
        return str(answer.read().decode())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        KEPT.write_text(json.dumps(surface(Path(temporary)), indent=1, sort_keys=True) + "\n")
