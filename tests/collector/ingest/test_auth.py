"""Nobody is let in who is not on the list, and nobody speaks for another: real sockets, real keys."""

from __future__ import annotations

import logging
import stat
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
import zmq.auth
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from zmon_collector.admin import ask
from zmon_collector.cli.keygen import keygen
from zmon_collector.config import Config, dump, load, parse
from zmon_collector.config.sections import SecuritySection
from zmon_collector.ingest.auth import (
    DOMAIN,
    LOGGED_KEYS,
    AllowedClient,
    AllowList,
    Authenticator,
    read_allow_list,
    zap_reply,
)
from zmon_collector.telemetry import Telemetry
from zmq.utils import z85

import zmon
from tests.support.collectors import Collector
from tests.support.waiting import until
from zmon._transport.keys import from_arguments
from zmon._wire import control
from zmon._wire import frames as wire
from zmon.batch import Schema
from zmon.errors import ConfigurationError, WireError

P = np.full((5, 2), 0.5)


@dataclass
class Pair:
    public: str
    secret: str

    @staticmethod
    def new() -> Pair:
        public, secret = zmq.curve_keypair()
        return Pair(public.decode(), secret.decode())


SERVER, POD, OTHER = Pair.new(), Pair.new(), Pair.new()


def clients(**pairs: tuple[Pair, str, str]) -> dict[str, Any]:
    return {name: {"key": p.public, "models": [m], "agents": [a]} for name, (p, m, a) in pairs.items()}


def allow(**pairs: tuple[Pair, str, str]) -> AllowList:
    return read_allow_list(SecuritySection(clients=clients(**pairs)))


@pytest.fixture
def secured(collect: Callable[..., Collector], tmp_path: Path) -> Callable[..., Collector]:
    path = tmp_path / "server.key_secret"
    path.write_text(SERVER.secret)
    path.chmod(0o600)

    def start(**pairs: tuple[Pair, str, str]) -> Collector:
        return collect(config=Config(security=SecuritySection(path, None, clients(**pairs))))

    return start


def counted(collector: Collector, name: str, label: str) -> int:
    return collector.service.telemetry.get(name, label)


def publisher(collector: Collector, pair: Pair, model: str = "m", **options: Any) -> zmon.Publisher:
    keys = {"secret_key": pair.secret, "server_key": SERVER.public}
    return collector.publisher(model, **{"classes": 2, "agent_id": "a", **keys, **options})


def test_whoever_is_allowed_publishes(secured: Callable[..., Collector]) -> None:
    collector = secured(pod=(POD, "m", "a"))
    with publisher(collector, POD) as one:
        one.publish(P)
        assert one.flush(60)
    health = ask(collector.folder, "health", 10)
    assert health is not None, "the admin socket is the folder's, and asks for no key"
    assert not any(pair.secret in str(health) for pair in (SERVER, POD))
    collector.stop()
    assert collector.counts("buffer_count", agent_id="a") == 5
    assert collector.service.telemetry.get("refused_clients") == 0


def test_a_key_that_is_allowed_later_gets_in_without_a_restart(
    secured: Callable[..., Collector], caplog: pytest.LogCaptureFixture
) -> None:
    collector = secured(pod=(POD, "*", "*"))
    with publisher(collector, OTHER) as one:
        one.publish(P)
        until(lambda: counted(collector, "refused_clients", "key") >= 3, what="three refusals")
        assert not one.stats.connected
        assert collector.service.telemetry.get("rows") == 0
        collector.service.receiver.auth.replace(allow(pod=(POD, "*", "*"), other=(OTHER, "m", "a")))
        assert one.flush(60), "libzmq does not try again by itself"
    said = caplog.text
    assert f"its key is {OTHER.public}" in said, "the operator is told which key to allow"
    assert f"does not allow this publisher's key {OTHER.public}" in said, "so is the service"
    assert len([line for line in caplog.messages if "refused a client" in line]) == 1
    for pair in (SERVER, POD, OTHER):
        assert pair.secret not in said


def test_a_key_that_is_taken_off_the_list_is_refused_from_the_next_message_on(
    secured: Callable[..., Collector],
) -> None:
    collector = secured(pod=(POD, "*", "*"))
    with publisher(collector, POD) as one:
        one.publish(P)
        assert one.flush(60)
        collector.service.receiver.auth.replace({})
        one.publish(P)
        until(lambda: counted(collector, "rejected_messages", "forbidden"), what="a refusal")
        assert not one.flush(0.2)
        assert collector.service.telemetry.get("rows") == 5
        one.close(timeout=0)


def test_a_client_without_keys_is_refused(secured: Callable[..., Collector], caplog: pytest.LogCaptureFixture) -> None:
    collector = secured(pod=(POD, "*", "*"))
    with collector.publisher("m", classes=2) as one:
        one.publish(P)
        until(lambda: counted(collector, "refused_clients", "handshake") >= 3, what="broken handshakes")
        until(lambda: "it may require secret_key and server_key" in caplog.text, what="the publisher's log line")
        assert not one.stats.connected
        one.close(timeout=0)
    assert collector.service.telemetry.get("rows") == 0


def test_another_collectors_key_is_noticed(secured: Callable[..., Collector], caplog: pytest.LogCaptureFixture) -> None:
    collector = secured(pod=(POD, "*", "*"))
    with publisher(collector, POD, server_key=OTHER.public) as one:
        one.publish(P)
        until(lambda: "server_key may be wrong" in caplog.text, what="the publisher's log line")
        one.close(timeout=0)
    assert collector.service.telemetry.get("rows") == 0


def test_another_domain_is_refused(secured: Callable[..., Collector]) -> None:
    """An allowed key opens this collector's sockets and no other socket of the process."""
    collector = secured(pod=(POD, "*", "*"))
    with collector.service.receiver.context.socket(zmq.PULL) as pull, zmq.Context() as context:
        pull.curve_server, pull.curve_secretkey, pull.zap_domain = True, SERVER.secret.encode(), b"elsewhere"
        port = pull.bind_to_random_port("tcp://127.0.0.1")
        with context.socket(zmq.PUSH) as push:
            push.linger = 0
            push.curve_secretkey, push.curve_publickey = POD.secret.encode(), POD.public.encode()
            push.curve_serverkey = SERVER.public.encode()
            push.connect(f"tcp://127.0.0.1:{port}")
            push.send(b"let me in")
            until(lambda: counted(collector, "refused_clients", "domain"), what="a refusal")
            assert not pull.poll(100)


def test_without_curve_it_is_found_again(collect: Callable[..., Collector], tmp_path: Path) -> None:
    """libzmq gives up after a handshake that can never work; the collector may be another one by now."""
    key = tmp_path / "key"
    key.write_text(SERVER.secret)
    strict = collect(config=Config(security=SecuritySection(key, None, clients(pod=(POD, "*", "*")))))
    with strict.publisher("m", classes=2) as one:
        one.publish(P)
        until(lambda: counted(strict, "refused_clients", "handshake"), what="a broken handshake")
        strict.stop()
        open_to_all = collect()
        assert open_to_all.data == strict.data
        assert one.flush(60)


# --- forged identities --------------------------------------------------------------------------------------------


class Raw:
    """A client with a key and no manners."""

    def __init__(self, collector: Collector, pair: Pair) -> None:
        self.context = zmq.Context()
        self.data, self.control = self.context.socket(zmq.XPUB), self.context.socket(zmq.DEALER)
        for socket in (self.data, self.control):
            socket.linger = 0
            socket.curve_secretkey, socket.curve_publickey = pair.secret.encode(), pair.public.encode()
            socket.curve_serverkey = SERVER.public.encode()
        self.data.connect(collector.data)
        self.control.connect(collector.control)
        assert self.data.poll(10_000), "no subscription"
        self.data.recv()

    def hello(self, topic: bytes, stream: bytes) -> None:
        self.control.send(
            control.encode_greeting(
                "hello", topic=topic, stream=stream, base=1, acked=0, issued=5, clock=0, tally={"rejected": {"x": 99}}
            )
        )

    def batch(self, topic: bytes, stream: bytes, first: int = 1) -> None:
        body = wire.encode_schema(Schema("classification", ("0", "1"), (), (), 0.5, {}))
        self.data.send_multipart(wire.encode_schema_message(topic, stream, body))
        self.data.send_multipart(
            wire.encode_batch(
                topic, stream=stream, schema=wire.schema_hash(body), first=first, rows=5, base=1, ts=10**18,
                arrays=[("probabilities", "<f8", [5, 2])], buffers=[P.tobytes()],
            )
        )  # fmt: skip

    def close(self) -> None:
        self.context.destroy(0)


@pytest.fixture
def raw() -> Iterator[Callable[..., Raw]]:
    made: list[Raw] = []

    def make(collector: Collector, pair: Pair) -> Raw:
        made.append(Raw(collector, pair))
        return made[-1]

    yield make
    for each in made:
        each.close()


FORGED = {
    "another model": wire.Topic("salary", "", "eu-1"),
    "another agent": wire.Topic("fraud-x", "", "us-1"),
    "a model that begins alike": wire.Topic("frau", "", "eu-1"),
}


@pytest.mark.parametrize("topic", FORGED.values(), ids=FORGED.keys())
def test_a_forged_identity_is_rejected_and_counted_on_both_sockets(
    topic: wire.Topic, secured: Callable[..., Collector], raw: Callable[..., Raw], caplog: pytest.LogCaptureFixture
) -> None:
    collector = secured(eu=(OTHER, "fraud*", "eu-*"), victim=(POD, "*", "*"))
    one = raw(collector, OTHER)
    one.hello(topic.encode(), b"s" * 16)
    until(lambda: counted(collector, "rejected_messages", "forbidden") == 1, what="the refused hello")
    one.batch(topic.encode(), b"s" * 16)
    until(lambda: counted(collector, "rejected_messages", "forbidden") == 3, what="the refused schema and batch")
    assert not one.control.poll(100), "no acknowledgement"
    assert not collector.service.ingestor.models, "not even a name is kept"
    with publisher(collector, POD, topic.model, agent_id=topic.agent_id) as victim:
        victim.publish(P)
        assert victim.flush(60), "the one it posed as is not affected"
    honest = wire.Topic("fraud-x", "", "eu-1").encode()
    one.hello(honest, b"t" * 16)
    one.batch(honest, b"t" * 16)
    until(lambda: collector.service.telemetry.get("rows") == 10, what="what it may say")
    assert "client 'eu' may not publish" in caplog.text
    collector.stop()
    assert collector.counts("buffer_count", model=topic.model, agent_id=topic.agent_id) == 5


def test_a_stream_belongs_to_the_key_that_began_it(secured: Callable[..., Collector], raw: Callable[..., Raw]) -> None:
    collector = secured(a=(POD, "*", "*"), b=(OTHER, "*", "*"))
    topic = wire.Topic("m", "", "a").encode()
    first, second = raw(collector, POD), raw(collector, OTHER)
    first.hello(topic, b"s" * 16)
    first.batch(topic, b"s" * 16)
    until(lambda: collector.service.telemetry.get("rows") == 5, what="five rows")
    second.batch(topic, b"s" * 16, first=6)
    until(lambda: counted(collector, "rejected_messages", "forbidden") == 1, what="the refused batch")
    assert collector.service.telemetry.get("rows") == 5


def test_keys_without_end_do_not_fill_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "key"
    path.write_text(SERVER.secret)
    path.chmod(0o600)
    gate = Authenticator(SecuritySection(path, None, clients(pod=(POD, "m", "*"))), Telemetry())
    for number in range(1000):
        for _ in range(2):
            with pytest.raises(WireError, match="forbidden"):
                gate.check(f"key {number}", wire.Topic("m", "", "a"))
    assert len(caplog.messages) == LOGGED_KEYS
    gate.check(POD.public, wire.Topic("m", "", "a"))


# --- ZAP, alone -----------------------------------------------------------------------------------------------------

KEY = z85.decode(POD.public.encode())
GOOD = [b"1.0", b"7", DOMAIN, b"127.0.0.1", b"", b"CURVE", KEY]
ALLOW = allow(pod=(POD, "*", "*"))
REFUSED = {
    "NULL": ([*GOOD[:5], b"NULL"], "mechanism"),
    "PLAIN": ([*GOOD[:5], b"PLAIN", b"user", b"password"], "mechanism"),
    "no domain": ([*GOOD[:2], b"", *GOOD[3:]], "domain"),
    "another domain": ([*GOOD[:2], b"zmon2", *GOOD[3:]], "domain"),
    "another key": ([*GOOD[:6], b"k" * 32], "key"),
    "a short key": ([*GOOD[:6], KEY[:31]], "mechanism"),
    "two keys": ([*GOOD, KEY], "mechanism"),
    "another version": ([b"2.0", *GOOD[1:]], "request"),
    "too little": ([b"1.0"], "request"),
}


def test_an_allowed_key_is_let_in_under_its_name() -> None:
    assert zap_reply(GOOD, ALLOW) == ([b"1.0", b"7", b"200", b"OK", POD.public.encode(), b""], "", POD.public)


@pytest.mark.parametrize(("frames", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_everything_else_is_refused(frames: list[bytes], why: str) -> None:
    answer, reason, _ = zap_reply(frames, ALLOW)
    assert reason == why
    assert len(answer) == 6
    assert answer[2] in (b"400", b"500")


@given(st.lists(st.sampled_from([*GOOD, b"", b"NULL"]) | st.binary(max_size=40), max_size=9))
def test_no_request_gets_in_by_chance(frames: list[bytes]) -> None:
    answer, _, _ = zap_reply(frames, ALLOW)
    assert (answer[2] == b"200") == (
        len(frames) == 7 and [frames[0], frames[2], *frames[5:]] == [b"1.0", DOMAIN, b"CURVE", KEY]
    )


# --- configuration and keys ------------------------------------------------------------------------------------------


def test_globs_bind_model_and_agent() -> None:
    client = AllowedClient("eu", ("fraud*", "churn"), ("eu-*",))
    assert client.may_publish(wire.Topic("fraud-2", "v", "eu-1"))
    assert client.may_publish(wire.Topic("churn", "", "eu-"))
    assert not client.may_publish(wire.Topic("churn2", "", "eu-1"))
    assert not client.may_publish(wire.Topic("fraud", "", "us-1"))


def test_the_list_may_be_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "clients.toml"
    section = SecuritySection(None, path, clients(pod=(POD, "m", "*")))
    path.write_text(f"[clients.other]\nkey = '{OTHER.public}'\nmodels = ['n']")
    assert read_allow_list(section) == {
        POD.public: AllowedClient("pod", ("m",), ("*",)),
        OTHER.public: AllowedClient("other", ("n",), ("*",)),
    }
    for text, says in {
        f"[clients.pod]\nkey = '{OTHER.public}'\nmodels = ['n']": "pod is also in the configuration",
        f"[clients.x]\nkey = '{POD.public}'\nmodels = ['n']": "x has the key of pod",
        "[client.x]": "may hold only tables",
        "[clients": "clients.toml",
        "clients = 3": "is not a table",
    }.items():
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=says):
            read_allow_list(section)
    path.unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_allow_list(section)


WRONG = {
    "no key": ("[security.clients.x]\nmodels = ['*']", "x has no key"),
    "a short key": ("[security.clients.x]\nkey = 'abc'\nmodels = ['*']", "x key: it is not a public key"),
    "no models": (f"[security.clients.x]\nkey = '{POD.public}'", 'models = ["*"]'),
    "models as text": (f"[security.clients.x]\nkey = '{POD.public}'\nmodels = '*'", "x models: '*' is not a list"),
    "an unknown key": ("[security.clients.x]\nkeys = 'a'", "x has an unknown key 'keys'"),
    "clients without a secret": (f"[security.clients.x]\nkey = '{POD.public}'\nmodels = ['*']", "no secret_key_file"),
    "no table": ("[security]\nclients = 3", "is not a table"),
}


@pytest.mark.parametrize(("text", "says"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_list_does_not_start(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "zmon.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as error:
        load(path)
    assert says in str(error.value)


def test_a_wrong_secret_file_does_not_start_and_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    for text in ("", POD.secret[:-1], "x" * 100_000):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=r"holds no secret-key|at most 16 KiB") as error:
            Authenticator(SecuritySection(path), Telemetry())
        assert not text or text not in str(error.value)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Authenticator(SecuritySection(tmp_path / "absent"), Telemetry())


def test_with_curve_it_may_bind_to_the_network_and_without_it_says_so(
    tmp_path: Path, collect: Callable[..., Collector], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "zmon.toml"
    path.write_text("[collector]\nbind = 'tcp://0.0.0.0:5757'\n[security]\nsecret_key_file = 'k'")
    assert not load(path).collector.insecure
    path.write_text("[collector]\nbind = 'tcp://0.0.0.0:5757'")
    with pytest.raises(ConfigurationError, match="insecure = true"):
        load(path)
    collect(bind="tcp://127.0.0.1:0")
    assert "without authentication" not in caplog.text
    collect(bind="tcp://0.0.0.0:0", folder="other", insecure=True)
    assert "open to the network without authentication (insecure = true)" in caplog.text


def test_a_list_without_clients_is_warned_of(
    secured: Callable[..., Collector], caplog: pytest.LogCaptureFixture
) -> None:
    secured()
    assert "allows no client" in caplog.text


def test_the_section_is_printed_and_read_back(tmp_path: Path) -> None:
    config = Config(security=SecuritySection(Path("s.key_secret"), Path("c.toml"), clients(pod=(POD, "m*", "a"))))
    assert parse(tomllib.loads(dump(config))) == config


def test_keygen_makes_a_pair_and_the_lines_that_use_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    runner = CliRunner()
    out = tmp_path / "keys"
    server = runner.invoke(keygen, ["--collector", "zmon", "--out", str(out)])
    pod = runner.invoke(keygen, ["pod", "--out", str(out)])
    assert server.exit_code == pod.exit_code == 0
    hidden = {name: (out / f"{name}.key_secret") for name in ("zmon", "pod")}
    for name, path in hidden.items():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE((out / f"{name}.key").stat().st_mode) == 0o644
    config = tmp_path / "zmon.toml"
    snippets = [result.output.partition("zmon.toml")[2].partition("\n\n")[2] for result in (server, pod)]
    config.write_text("\n".join(each.partition("\n\n")[0] for each in snippets))
    loaded = load(config)
    gate = Authenticator(loaded.security, Telemetry())
    assert gate.enabled
    keys = from_arguments(hidden["pod"], str(out / "zmon.key"))
    assert keys is not None
    gate.check(keys.public.decode(), wire.Topic("m", "", "a"))
    secrets = [zmq.auth.load_certificate(path)[1].decode() for path in hidden.values()]
    for text in (server.output, pod.output, caplog.text, repr(keys), dump(loaded), (out / "pod.key").read_text()):
        assert not any(secret in text for secret in secrets)
    again = runner.invoke(keygen, ["pod", "--out", str(out)])
    assert "not overwritten" in str(again.exception)
    assert zmq.auth.load_certificate(hidden["pod"])[1].decode() == secrets[1]
