"""The house itself: imports point one way, modules are small and say their place, the docs tell what the code does."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import click
import pytest
from zmon_collector.cli.main import cli
from zmon_plugins.api.target import ApiTarget

import zmon
import zmon.hooks
from tests import pages

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "zmon": ROOT / "zmon",
    "zmon_collector": ROOT / "collector/zmon_collector",
    "zmon_plugins": ROOT / "plugins/zmon_plugins",
}
ALLOWED = {
    "zmon": {"zmon"},
    "zmon_plugins": {"zmon", "zmon_plugins"},
    "zmon_collector": {"zmon", "zmon_plugins", "zmon_collector"},
}
PURE = {  # no sockets, no clock, no threads
    "zmon._wire.frames": set(),
    "zmon._wire.control": set(),
    "zmon._transport.ring": set(),
    "zmon._capture.fast_path": set(),
    "zmon.batch": set(),
    "zmon.options": set(),
    "zmon.state": set(),
    "zmon.categories": set(),
    "zmon._capture.kinds": set(),
    "zmon._capture.inputs": set(),
    "zmon.reference.bins": set(),
    "zmon.reference.build": set(),
    "zmon.reference.calibration": set(),
    "zmon.reference.codec": set(),
    "zmon.reference.sketch": set(),
    "zmon_collector.windows.window": set(),
    "zmon_collector.windows.manager": set(),
    "zmon_collector.compute.sample": set(),
    "zmon_collector.ingest.stream_position": set(),
    "zmon_collector.ingest.validation": set(),
    "zmon_collector.compute.merge": set(),
    "zmon_collector.compute.segments": set(),
    "zmon_collector.config.series_selection": set(),
    "zmon_collector.jobs.push.plan": set(),
    "zmon_collector.jobs.push.files": set(),
    "zmon_plugins.api.responses": set(),
    "zmon_plugins.api.pace": set(),
}
IMPURE = {"zmq", "socket", "time", "threading", "asyncio", "os", "subprocess", "logging"}
LIGHT = {"zmq", "msgpack", "numpy", "narwhals"}
LONGEST = 420  # lines; a module that grows towards it is two steps of the flow


def modules() -> list[tuple[str, Path]]:
    return [
        (".".join([package, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__"), path)
        for package, folder in PACKAGES.items()
        for path in sorted(folder.rglob("*.py"))
    ]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize(("name", "path"), modules(), ids=[name for name, _ in modules()])
def test_imports_point_one_way(name: str, path: Path) -> None:
    package = name.partition(".")[0]
    ours = {each for each in imports(path) if each.partition(".")[0] in PACKAGES}
    wrong = {each for each in ours if each.partition(".")[0] not in ALLOWED[package]}
    assert not wrong, f"{name} imports {wrong}"
    if name in PURE:
        assert not {each.partition(".")[0] for each in imports(path)} & IMPURE, f"{name} is not pure"


def test_the_light_package_imports_nothing_heavy() -> None:
    standard = set(__import__("sys").stdlib_module_names)
    for name, path in modules():
        if name.partition(".")[0] != "zmon":
            continue
        outside = {each.partition(".")[0] for each in imports(path)} - standard - {"zmon"} - LIGHT
        assert outside <= ({"pluggy", "click"} if name == "zmon.hooks" else set()), f"{name} imports {outside}"


@pytest.mark.parametrize(("name", "path"), modules(), ids=[name for name, _ in modules()])
def test_a_module_is_small_and_says_its_place(name: str, path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{name} has no docstring"
    assert len(text.splitlines()) <= LONGEST, f"{name} is too long"


BLIND_SQL = re.compile(r"SELECT\s+\*\s+FROM|INTO\s+\w+\s+VALUES", re.I)


def test_sql_names_its_columns() -> None:
    """A column that a migration adds or moves must not shift what is read and written."""
    assert BLIND_SQL.search("SELECT * FROM t") and BLIND_SQL.search("insert into t values (?)")
    for name, path in modules():
        assert not (bad := BLIND_SQL.search(path.read_text())), f"{name}: {bad and bad[0]!r} names no columns"


@pytest.mark.parametrize("module", [each.name for each in pkgutil.walk_packages(zmon.__path__, "zmon.")])
def test_examples_in_docstrings_run(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_examples_use_public_modules_alone() -> None:
    inside = re.compile(r"(?:from|import) +(?:zmon_collector|zmon_plugins|zmon\._)")
    for path in (path for path in (ROOT / "examples").rglob("*") if path.suffix in {".py", ".ipynb", ".md"}):
        assert not inside.search(path.read_text()), f"{path.relative_to(ROOT)} imports private modules"


def test_dependencies_are_as_light_as_promised() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {re.split(r"[>=<\[]", each)[0] for each in project["dependencies"]} == {
        "pyzmq",
        "msgpack",
        "numpy",
        "narwhals",
    }
    assert project["version"] == zmon.__version__
    assert f"## {zmon.__version__}" in (ROOT / "CHANGELOG.md").read_text().replace("[", "").replace("]", "")


# --- documentation ------------------------------------------------------------------------------------------------


def test_generated_pages_are_fresh() -> None:
    for path, text in pages.generated().items():
        assert (ROOT / path).read_text() == text, f"{path} is stale: run `make docs`"


def test_every_public_name_and_hook_is_documented() -> None:
    text = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    for name in zmon.__all__:
        assert name.startswith("__") or name in text, f"{name} is in no page of docs/"
    for hook in ("register_metrics", "register_sinks", "register_commands", "window_closed"):
        assert hasattr(zmon.hooks, hook)
        assert hook in text


def test_every_key_of_the_configuration_says_what_it_means() -> None:
    for section in pages.SECTIONS:
        for each in fields(section):
            assert each.metadata["doc"], each.name


def test_every_key_of_the_api_sink_is_documented() -> None:
    text = (ROOT / "docs/sinks.md").read_text()
    for each in fields(ApiTarget):
        assert each.name in text, each.name


def test_every_option_has_help() -> None:
    for _, command in pages.every_command("zmon", cli):
        assert command.help
        for option in command.params:
            assert isinstance(option, click.Argument) or option.help, f"{command.name} {option.name}"  # type: ignore[attr-defined]


REASON = re.compile(r'(?:Rejected|WireError)\(\s*"([a-z_]+)"')


def test_every_reason_of_a_rejection_is_documented() -> None:
    text = (ROOT / "docs/publisher.md").read_text() + (ROOT / "docs/collector.md").read_text()
    for name, path in modules():
        for reason in REASON.findall(path.read_text()):
            assert f"`{reason}`" in text, f"reason {reason} of {name} is not documented"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_the_first_example_of_the_readme_runs() -> None:
    """As it stands; no collector is there, and the service does not care."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_the_project_speaks_of_itself_alone() -> None:
    tracked = [
        path
        for path in ROOT.rglob("*")
        if path.suffix in {".py", ".md", ".toml", ".yml"} and not any(p.startswith(".venv") for p in path.parts)
    ]
    for path in tracked:
        assert "/work/" not in path.read_text().replace("zmon-work", "") or path == Path(__file__), path
