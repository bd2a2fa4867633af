"""The house itself: imports point one way, modules are small and say their place, the docs tell what the code does."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
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


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of pyproject.toml on the tree at `root`."""
    path = os.pathsep.join(str(root / folder) for folder in (".", "collector", "plugins"))
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=root, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.integration
def test_imports_run_one_way() -> None:
    """Layers between and inside wings, pure modules without sockets or clocks: the contracts of pyproject.toml."""
    checked = lint_imports(ROOT)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.integration
@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("zmon/batch.py", "import zmon_collector.service"),
        ("collector/zmon_collector/windows/window.py", "from zmon_collector.compute import engine"),
        ("collector/zmon_collector/compute/merge.py", "import time"),  # it is pure
        (
            "collector/zmon_collector/storage/chunk_codec.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from zmon_collector.storage import journal",
        ),
        (
            "collector/zmon_collector/delivery/outbox.py",
            "def late():\n    from zmon_collector.alerts import rules",
        ),
    ],
)
def test_a_reversed_import_is_found(module: str, line: str, tmp_path: Path) -> None:
    for folder in ("zmon", "collector", "plugins"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "static"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / module
    path.write_text(f"{path.read_text()}\n\n{line}\n")
    checked = lint_imports(tmp_path)
    assert checked.returncode == 1, checked.stdout
    assert "BROKEN" in checked.stdout


def functions() -> Iterator[tuple[str, str, list[ast.arg], list[ast.arg]]]:
    """Each function of the production code: where, its name, its positional parameters, all of them; without self."""
    for _, path in modules():
        for kind in ast.walk(ast.parse(path.read_text())):
            for node in ast.iter_child_nodes(kind):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    positional = [*node.args.posonlyargs, *node.args.args]
                    if isinstance(kind, ast.ClassDef) and positional and positional[0].arg in ("self", "cls"):
                        del positional[0]
                    owner = f"{kind.name}." if isinstance(kind, ast.ClassDef) else ""
                    yield (
                        str(path.relative_to(ROOT)),
                        owner + node.name,
                        positional,
                        [*positional, *node.args.kwonlyargs],
                    )


def test_no_function_takes_more_than_five_positional_parameters() -> None:
    theirs = {"MonitoringAgent.__init__"}  # another library's signature
    long = [f"{path} {name}" for path, name, positional, _ in functions() if len(positional) > 5 and name not in theirs]
    assert not long


def test_no_class_is_built_with_more_than_two_callables() -> None:
    many = [
        f"{path} {name}"
        for path, name, _, parameters in functions()
        if name.endswith(".__init__")
        and sum("Callable" in ast.unparse(each.annotation) for each in parameters if each.annotation) > 2
    ]
    assert not many


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


def test_the_versions_that_watching_names_are_those_of_the_tests() -> None:
    pinned = dict(re.findall(r"^([a-z-]+)==(\d+\.\d+)", (ROOT / "tests/requirements.txt").read_text(), re.M))
    text = (ROOT / "docs/watching.md").read_text()
    names = {"scikit-learn": "scikit-learn", "TensorFlow": "tensorflow", "PyTorch": "torch", "xgboost": "xgboost",
             "LightGBM": "lightgbm", "ONNX Runtime": "onnxruntime", "transformers": "transformers",
             "CatBoost": "catboost", "MLflow": "mlflow-skinny"}  # fmt: skip
    for shown, package in names.items():
        found = set(re.findall(rf"{shown}\s(\d+\.\d+)(?=[ ,.|])", text))
        newer = {"3.1"} if shown == "xgboost" else set()  # from which categories can be read back
        assert found - newer == {pinned[package]}, shown


def test_the_readme_counts_metrics_and_measures_right() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    metrics, measures = re.findall(r"^## \w+$", page, re.M), set(re.findall(r"^\| (\w+) \|", page, re.M)) - {"what"}
    assert (
        f"[{len(metrics)} metrics](docs/metrics.md) emit {len(measures)} measures" in (ROOT / "README.md").read_text()
    )


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
