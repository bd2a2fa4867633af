"""One key, or one address, takes all the places that it can get: the others still get theirs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zmon
from tests.hostile.attacker import Attacker
from tests.hostile.keys import Keys
from tests.hostile.scene import Scene
from tests.support.waiting import until

MODELS = 'models = ["{}*"]'
STREAM_BYTES, MODEL_BYTES = 8 * 2**10, 256 * 2**10  # of a session, and of a version with a window; docs/operations.md
SPARE = 32 * 2**20  # bytes that the collector takes up in a minute of work
VERSIONS = 1_001
STREAMS = 10_100


def newcomer_works(scene: Scene, arguments: dict[str, Any], version: str | None = "2", **names: str) -> None:
    """A publisher with a new version and a new stream, of those that may not be locked out."""
    options = {"classes": 3, "collector": scene.collector.endpoint, "agent_id": "good-2", **names, **arguments}
    with zmon.Publisher("steady", version=version, **options) as publisher:
        publisher.publish(np.full((10, 3), 1 / 3))
        assert publisher.flush(60)
        stats = publisher.stats
    assert (stats.acknowledged, stats.rejected, stats.dropped) == (10, {}, {})


def begins(scene: Scene) -> None:
    """Wait until the good publisher has its place: the attack begins after that."""
    scene.wait_for(pool("models", lambda models: models["used"] == 1), "the good publisher's rows")


def samples(scene: Scene, what: str = "buffer_count") -> Counter[tuple[str, str, str]]:
    """The sum of a series by model, version and agent; the rollups are without an agent."""
    found: Counter[tuple[str, str, str]] = Counter()
    for path in (scene.collector.folder / "anodot").glob("*.json"):
        for sample in json.loads(path.read_text()):
            said = sample["properties"]
            if said["what"] == what:
                found[said["model"], said.get("model_version", ""), said.get("agent_id", "")] += int(sample["value"])
    return found


def pool(name: str, condition: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """A condition on the pool of this name in health."""
    return lambda health: condition(health["admission"][name])


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path, good=MODELS.format("steady"), evil=MODELS.format("evil"))


def test_greetings_of_a_thousand_versions_take_no_place(keys: Keys, tmp_path: Path) -> None:
    with (
        Scene(tmp_path, keys.config, **keys.of("good")) as scene,
        Attacker(scene.collector.endpoint, **keys.of("evil")) as evil,
    ):
        begins(scene)
        for number in range(VERSIONS):
            evil.greet(number, "evil", f"v{number}", issued=number % 2)
        scene.wait_for(pool("streams", lambda streams: streams["by"].get("evil") == VERSIONS))
        assert scene.health["admission"]["models"]["by"] == {"good": 1}
        newcomer_works(scene, keys.of("good"))
    assert scene.grown < VERSIONS * STREAM_BYTES + SPARE, scene.grown


def test_rows_of_more_versions_than_its_share_are_refused_and_answered(keys: Keys, tmp_path: Path) -> None:
    limit = 100
    with Scene(tmp_path, f"[limits]\nmodels = {limit}\n{keys.config}", **keys.of("good")) as scene:
        with Attacker(scene.collector.endpoint, **keys.of("evil")) as evil:
            begins(scene)
            for number in range(limit + 1):
                evil.greet(number, "evil", f"v{number}", issued=1)
                evil.rows(number, "evil", f"v{number}")
            scene.wait_for(lambda health: health["counters"].get("rejected{models}"), "rejections")
            health = scene.wait_for(lambda health: health["counters"]["rows"] and health)
            models = health["admission"]["models"]
            assert models["used"] < limit and models["by"]["evil"] == 75  # all but the rest of the other's quarter
            (problem,) = [problem for problem in health["problems"] if "limits.models" in problem]
            assert "evil" in problem and "75 of 100" in problem
            refused = until(lambda: [ack for ack in evil.answers() if ack.refused], "the answer")
            assert refused[0].refused["models"][0] == 1 and "limits.models" in refused[0].refused["models"][1]
            for version in range(2, 26):  # the other's quarter
                newcomer_works(scene, keys.of("good"), str(version))
        assert scene.collector.said().count("fills its share of limits.models") == 1
    assert scene.grown < limit * MODEL_BYTES + SPARE, scene.grown


def test_fresh_streams_without_end_push_out_only_those_of_their_own_key(keys: Keys, tmp_path: Path) -> None:
    with (
        Scene(tmp_path, keys.config, **keys.of("good")) as scene,
        Attacker(scene.collector.endpoint, **keys.of("evil")) as evil,
    ):
        begins(scene)
        for number in range(STREAMS):
            evil.greet(number, "evil")
        answered: set[bytes] = set()
        until(lambda: answered.update(ack.stream for ack in evil.answers()) or len(answered) == STREAMS, "answers")
        scene.wait_for(pool("streams", lambda streams: streams["by"] == {"evil": 7_500, "good": 1}), "its share")
        newcomer_works(scene, keys.of("good"))
        assert scene.health["admission"]["remembered"]["by"].get("evil", 0) == 0
    assert scene.grown < STREAMS * STREAM_BYTES + SPARE, scene.grown


def test_a_key_without_a_place_for_its_stream_is_told_so(keys: Keys, tmp_path: Path) -> None:
    limit = 40
    with (
        Scene(tmp_path, f"[limits]\nstreams = {limit}\n{keys.config}", **keys.of("good")) as scene,
        Attacker(scene.collector.endpoint, **keys.of("evil")) as evil,
    ):
        begins(scene)
        for number in range(limit):
            evil.rows(number, "evil")
        # Rows of the last ones find no place once all places are of streams that have sent rows.
        scene.wait_for(lambda health: health["counters"].get("rejected_messages{streams}"), "its share to be filled")
        evil.greet(limit, "evil")
        acks = until(lambda: [ack for ack in evil.answers() if ack.held_off], "the answer")
        assert acks[0].refused["streams"][0] == 0 and "limits.streams" in acks[0].refused["streams"][1]
        scene.wait_for(lambda health: any("limits.streams" in problem for problem in health["problems"]))
        newcomer_works(scene, keys.of("good"))


def test_fresh_agents_without_end_leave_the_others_places(tmp_path: Path) -> None:
    keys = Keys(tmp_path, good=MODELS.format("steady"), evil=MODELS.format("steady") + '\nagents = ["evil*"]')
    with (
        Scene(tmp_path, keys.config, **keys.of("good")) as scene,
        Attacker(scene.collector.endpoint, **keys.of("evil")) as evil,
    ):
        begins(scene)
        for number in range(300):
            evil.greet(number, "steady", "", f"evil{number}", issued=1)
            evil.rows(number, "steady", "", f"evil{number}")
        scene.wait_for(lambda health: health["counters"].get("agents_over_limit"), "agents beyond the share")
        for number in range(2, 6):
            newcomer_works(scene, keys.of("good"), None, agent_id=f"good-{number}")
    agents = {agent for model, _, agent in samples(scene) if model == "steady"}
    assert {"good", *(f"good-{number}" for number in range(2, 6))} <= agents
    assert len(agents) <= 102  # with the rollup and the others together


def test_an_address_on_an_open_network_has_its_share_only(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "[limits]\nmodels = 64\n", collector="insecure = true\ncontrol = 'tcp://0.0.0.0:PORT'")
    control_port = int(scene.collector.endpoint.rpartition(":")[2]) + 1
    text = scene.collector.config.read_text()
    scene.collector.config.write_text(text.replace("PORT", str(control_port)))
    with scene, Attacker(scene.collector.endpoint, source="127.0.0.2") as evil:
        begins(scene)
        for number in range(65):
            evil.greet(number, "evil", f"v{number}", issued=1)
            evil.rows(number, "evil", f"v{number}")
        scene.wait_for(lambda health: health["counters"].get("rejected{models}"), "rejections")
        models = scene.health["admission"]["models"]["by"]
        assert models["127.0.0.1"] == 1 and models["127.0.0.2"] == 64 - 1 - (7 * 4 - 1)
        assert any("127.0.0.2" in problem for problem in scene.health["problems"])
        newcomer_works(scene, {})


def test_three_tenants_that_take_all_they_can_have_their_shares_and_exact_rows(tmp_path: Path) -> None:
    wanted, limit, batches = {"red": 24, "green": 6, "blue": 6}, 24, 20  # red comes first, and wants everything
    tenants = {name: MODELS.format(name) for name in wanted}
    keys = Keys(tmp_path, good=MODELS.format("steady"), **tenants)
    with Scene(tmp_path, f"[limits]\nmodels = {limit}\n{keys.config}", **keys.of("good")) as scene, ExitStack() as all_:
        begins(scene)
        publishers: dict[tuple[str, str], zmon.Publisher] = {}
        for names in (("red",), ("green", "blue")):
            publishers |= {
                (name, str(version)): all_.enter_context(
                    zmon.Publisher(
                        name, version=str(version), classes=3, collector=scene.collector.endpoint, agent_id="a",
                        **keys.of(name),
                    )
                )
                for name in names
                for version in range(wanted[name])
            }  # fmt: skip
            for _ in range(batches):
                for publisher in publishers.values():
                    publisher.publish(np.full((10, 3), 1 / 3))
            assert all(publisher.flush(60) for publisher in publishers.values())
        stats = {key: publisher.stats for key, publisher in publishers.items()}
        # A tenant has its part, an eighth, whatever the others do; two places are kept for the good publisher's key.
        shares = {"good": 1, "red": 15, "green": 3, "blue": 3}
        scene.wait_for(pool("models", lambda models: models["by"] == shares), "places to be filled")
    rows = samples(scene)
    for (name, version), each in stats.items():
        issued = 10 * batches * (2 if name == "red" else 1)
        assert each.acknowledged + each.rejected.get("models", 0) == issued and not each.dropped, each
        assert rows[name, version, "a"] == each.acknowledged, (name, version)
        assert each.acknowledged in (0, issued), "a version has its place or it has none"
    assert sum(each.acknowledged > 0 for each in stats.values()) == 15 + 3 + 3
