"""What `zmon validate` says a collector takes: the sum of the bounds, as docs/operations.md has it."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner
from zmon_collector import sizing
from zmon_collector.cli.validate import validate
from zmon_collector.config import Config, parse
from zmon_collector.config.sections import LimitsSection

MIB = 2**20
PAGE = Path(__file__).parents[2] / "docs/operations.md"


def test_each_limit_counts() -> None:
    plain = Config()
    for name, items in (
        ("inflight_bytes", sizing.memory), ("message_bytes", sizing.memory), ("sample_bytes", sizing.memory),
        ("schema_bytes", sizing.memory), ("journal_bytes", sizing.disk), ("label_bytes", sizing.disk),
        ("outbox_bytes", sizing.disk),
    ):  # fmt: skip
        more = Config(limits=LimitsSection(**{name: getattr(plain.limits, name) + 10 * MIB}))
        grown = sizing.total(items(more)) - sizing.total(items(plain))
        assert grown == (20 if name == "inflight_bytes" else 10) * MIB, name


def test_what_is_off_takes_nothing() -> None:
    without = parse({"web": {"enabled": False}, "sinks": {"anodot_file": {"enabled": False}}})
    names = {item.what for item in (*sizing.memory(without), *sizing.disk(without))}
    assert not names & {"the page and its viewers", "history", "files of points"}
    small = parse({"sinks": {"anodot_file": {"keep_bytes": 5 * MIB}}})
    assert {item.what: item.nbytes for item in sizing.disk(small)}["files of points"] == 5 * MIB


def test_validate_prints_the_sums_and_the_page_has_them(tmp_path: Path) -> None:
    path = tmp_path / "zmon.toml"
    path.write_text("")
    printed = CliRunner().invoke(validate, [str(path)])
    assert printed.exit_code == 0, printed.output
    for what, items in (("memory", sizing.memory(Config())), ("disk", sizing.disk(Config()))):
        line = f"{what}: at most {sizing.total(items) / MIB:,.0f} MiB"
        assert line in printed.output
        assert line in PAGE.read_text(), line
        for item in items:
            assert re.search(
                rf"^  {item.what}: {item.nbytes / MIB:,.0f}\\b".replace("\\\\", "\\"), printed.output, re.M
            ), item
