"""Two collectors share ten models; one stops and the other takes its models: each row is in a point, or counted."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from zmon_collector.cli.main import cli

import zmon
from tests.faults.harness import OLD
from tests.support.mortal import Mortal
from tests.support.waiting import until
from zmon.errors import ConfigurationError

MODELS = [f"m{i}" for i in range(10)]
KINDS = ("buffer_count", "rows_late", "rows_lost", "rows_rejected", "rows_sampled_out")


def config(models: list[str]) -> str:
    return f'[collector]\nmodels = {models!r}\nwindow = "60s"\ngrace = "0s"\nidle = "60s"\nmax_wait = "120s"\n'


@contextmanager
def publishers(*collectors: Mortal) -> Iterator[dict[str, zmon.Publisher]]:
    with ExitStack() as stack:
        endpoints = [collector.endpoint for collector in collectors]
        yield {
            model: stack.enter_context(
                zmon.Publisher(model, classes=3, collector=endpoints, agent_id="a", buffer_bytes=2**20)
            )
            for model in MODELS
        }


def publish(each: dict[str, zmon.Publisher], minute: int, issued: dict[str, int]) -> None:
    for number, (model, publisher) in enumerate(each.items()):
        for i in range(20):
            rows = 5 + number
            publisher.publish(np.full((rows, 3), 1 / 3), timestamps=OLD + 60 * minute + 2.9 * i)
            issued[model] += rows


def all_acknowledged(each: dict[str, zmon.Publisher]) -> None:
    for model, publisher in each.items():
        assert publisher.flush(60), (model, publisher.stats)


def settled(collectors: list[Mortal], model: str) -> int:
    """Rows of a model in points, and counted, in all collectors together."""
    return sum(_samples(collector, model) for collector in collectors)


def _samples(collector: Mortal, model: str, kinds: tuple[str, ...] = KINDS) -> int:
    found = 0
    for path in (collector.folder / "anodot").glob("*.json"):
        for sample in json.loads(path.read_text()):
            names: dict[str, Any] = sample["properties"]
            if names["model"] == model and "agent_id" in names and names["what"] in kinds:
                found += sample["value"]
    return found


@pytest.mark.timeout(240)
def test_a_stopped_collectors_models_are_taken_by_the_other(tmp_path: Path) -> None:
    left, right = Mortal(tmp_path / "left", config(MODELS[:5])), Mortal(tmp_path / "right", config(MODELS[5:]))
    issued = dict.fromkeys(MODELS, 0)
    with left.running(), right.running(), publishers(left, right) as each:
        publish(each, 0, issued)
        all_acknowledged(each)
        # A ring does not fill up with what only the other collector would not take.
        until(lambda: all(not publisher.stats.queued_bytes for publisher in each.values()), what="empty rings")
        publish(each, 1, issued)
        left.kill(signal.SIGTERM)  # rows of the last minute are on its disk, or still with their publishers
        publish(each, 2, issued)
        right.config.write_text(config(MODELS))
        right.kill(signal.SIGTERM)
        right.start()
        right.wait_until_up()
        publish(each, 3, issued)
        assert not any(publisher.flush(0.1) for publisher in list(each.values())[:5]), "the left one may come back"
        publish(each, 4, issued)
        left.config.write_text(config(["none"]))  # or it would take its models again
        left.start()  # to close the windows that were open
        left.wait_until_up()
        all_acknowledged(each)  # it is there, and does not take them any more
    left.end()
    right.end()
    assert {model: settled([left, right], model) for model in MODELS} == issued
    assert all(_samples(left, model) == 0 for model in MODELS[5:])
    assert all(_samples(left, model) and _samples(right, model) for model in MODELS[:5])
    assert not any(_samples(collector, model, KINDS[1:]) for collector in (left, right) for model in MODELS)


@pytest.mark.timeout(240)
def test_a_model_moves_while_its_publisher_is_young(tmp_path: Path) -> None:
    """The other collector has not been there for long enough to be known to not take the model."""
    left, right = Mortal(tmp_path / "left", config(["m0"])), Mortal(tmp_path / "right", config(["other"]))
    with left.running(), right.running():
        endpoints = [left.endpoint, right.endpoint]
        with zmon.Publisher("m0", classes=3, collector=endpoints, agent_id="a", sample_rate=0.5) as publisher:
            for i in range(40):
                publisher.publish(np.full((10, 3), 1 / 3), timestamps=OLD + i)
                publisher.publish(np.full((2, 3), np.nan))
            assert publisher.flush(60)
            left.config.write_text(config(["other"]))
            right.config.write_text(config(["m0"]))
            for collector in (left, right):
                collector.kill(signal.SIGTERM)
                publisher.publish(np.full((2, 3), np.nan))
                collector.start()
                collector.wait_until_up()
            for i in range(40):
                publisher.publish(np.full((10, 3), 1 / 3), timestamps=OLD + 60 + i)
                publisher.publish(np.full((2, 3), np.nan))
            assert publisher.flush(60)
            issued = 800 + 2 * 82
    left.end()
    right.end()
    assert settled([left, right], "m0") == issued
    assert all(_samples(each, "m0", ("buffer_count",)) for each in (left, right))
    rejected = [_samples(each, "m0", ("rows_rejected",)) for each in (left, right)]
    assert sum(rejected) == 2 * 82 and all(rejected)


@pytest.mark.timeout(240)
def test_close_waits_for_a_collector_that_restarts(tmp_path: Path) -> None:
    collector = Mortal(tmp_path / "one", config(["m0"]))
    with collector.running():
        publisher = zmon.Publisher("m0", classes=3, collector=collector.endpoint, agent_id="a")
        publisher.publish(np.full((10, 3), 1 / 3), timestamps=OLD)
        assert publisher.flush(60)
        collector.kill()
        for i in range(100):
            publisher.publish(np.full((10, 3), 1 / 3), timestamps=OLD + i / 10)
        until(lambda: not publisher.stats.connected, what="the loss of the connection")
        closing = threading.Thread(target=publisher.close, args=(120,))
        closing.start()
        closing.join(2.0)  # longer than it gives a collector that was never there
        assert closing.is_alive()
        collector.start()
        closing.join(120)
        assert not publisher.stats.dropped
        assert publisher.stats.acknowledged == 1010
    collector.end()
    assert _samples(collector, "m0", ("buffer_count",)) == 1010


# --- zmon validate a.toml b.toml --------------------------------------------------------------------------------------


def validate(folder: Path, *files: str) -> Any:
    paths = []
    for i, text in enumerate(files):
        path = folder / f"{i}.toml"
        path.write_text(text)
        paths.append(str(path))
    return CliRunner().invoke(cli, ["validate", *paths])


@pytest.mark.integration
def test_configurations_that_share_models_are_checked_together(tmp_path: Path) -> None:
    one = '[collector]\nmodels = ["a", "b"]\ndata_dir = "one"\n[models.a]\nwindow = "30s"\n'
    two = '[collector]\nmodels = ["c"]\nbind = "tcp://127.0.0.1:6757"\ndata_dir = "two"\n[models.c]\nwindow = "30s"\n'
    found = validate(tmp_path, one, two)
    assert found.exit_code == 0 and "3 models, each in one of 2 collectors" in found.output, found.output
    found = validate(tmp_path, one, two.replace('["c"]', '["c", "b"]'))
    assert found.exit_code == 1 and "model 'b' is claimed by" in found.output
    found = validate(tmp_path, one, two.replace('["c"]', '["b*", "c"]'))
    assert found.exit_code == 1 and "model 'b' is claimed by" in found.output
    found = validate(tmp_path, one, two.replace("[models.c]", "[models.d]"))
    assert found.exit_code == 1 and "model 'd' is configured in" in found.output and "no collector" in found.output
    found = validate(tmp_path, one, two.replace('"c"', '"*"'))
    assert found.exit_code == 1 and "'a' is claimed by" in found.output
    found = validate(tmp_path, one, "[collector]\nwindw = 1\n")
    assert isinstance(found.exception, ConfigurationError)
