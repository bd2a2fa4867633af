"""The collector: receive → decode → settle → window → metrics → outbox → sinks. Reads as the diagram in the docs."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from zmon.batch import Schema
from zmon.control import Greeting, decode_greeting, encode_ack
from zmon.errors import WireError
from zmon.wire import Message, Topic, decode, decode_schema, pack, unpack
from zmon_collector import intake
from zmon_collector.choice import chooser
from zmon_collector.config import Config
from zmon_collector.dispatch import Delivery, ObserverDelivery, SinkDelivery
from zmon_collector.engine import Closed, Engine
from zmon_collector.live import Live
from zmon_collector.outbox import Outbox
from zmon_collector.plugins import Registry, check_names
from zmon_collector.receive import Received, Receiver
from zmon_collector.sample import stream_seed
from zmon_collector.share import Model
from zmon_collector.streams import Stream, first_contact
from zmon_collector.telemetry import Telemetry
from zmon_collector.window import Book, Now

log = logging.getLogger("zmon.collector")

TICK = 0.05  # seconds between looks at what is due
SETTLE = 2.0  # seconds after a start in which publishers reconnect and no window closes
TURN = 256  # messages taken between two looks at what is due
ENGINE_BYTES = 32 * 2**20  # of rows that wait for metrics; beyond it receiving pauses
LEAST_WINDOW = 64 * 2**10  # bytes any publisher may have under way
FORGET_AFTER = 3600.0  # seconds without rows, hello or ping
GONE_AFTER = 1.0  # seconds after a goodbye in which what was under way still counts as arrived
EXIT_WAIT = 10.0  # seconds that sinks get at the end
SCHEMAS = 10_000
DEFAULT_SINK = "anodot_file"


class Service:
    """One collector. `run` works until `stop` is called, from a signal handler or another thread.

    Parameters
    ----------
    config : Config
    registry : Registry, optional
        Plugins already loaded; by default all that are installed.
    """

    def __init__(self, config: Config, registry: Registry | None = None) -> None:
        self.config = config
        self.telemetry = Telemetry()
        self.registry = registry or load_plugins(config)
        self._wakeup = threading.Event()
        self._stopping = False
        self._started = 0.0
        self._holding = True
        self._streams: dict[bytes, Stream] = {}
        self._peers: dict[bytes, bytes] = {}  # who to answer, by stream
        self._heard: dict[bytes, float] = {}
        self._schemas: dict[bytes, Schema] = {}
        self._books: dict[Model, Book] = {}
        self._tags: dict[Model, dict[str, Mapping[str, str]]] = {}
        self._acks: dict[bytes, bytes] = {}  # streams to acknowledge in this turn, and the schema each lacks
        self.engine = Engine(
            self.registry,
            choose=chooser(config.preset),
            options=config.options,
            sample_rows=config.sample_rows,
            sample_bytes=config.limits.sample_bytes,
            workers=config.collector.workers,
            timeout=config.collector.metric_timeout,
            wake=self._wakeup.set,
        )
        self.receiver = Receiver(config, self.telemetry, self._wakeup.set)
        self.outbox = Outbox(config.limits.outbox_bytes, next_sequence(config.collector.data_dir))
        self._deliveries: list[Delivery] = [
            SinkDelivery(sink, self.outbox, self.telemetry)
            for name, sink in self.registry.sinks.items()
            if sink_is_on(config, name)
        ]
        self._deliveries.append(ObserverDelivery(self.registry.announce, self.outbox, self.telemetry))
        self.live = Live(config, self.outbox, self.telemetry, self.registry.table)
        self._deliveries += self.live.deliveries

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Bind the sockets and start the threads; ConfigurationError when that cannot be."""
        self.config.collector.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.live.start()
        self.receiver.start()
        for delivery in self._deliveries:
            delivery.start()
        self._started = time.monotonic()
        log.info("collecting on %s (control %s)", self.receiver.data, self.receiver.control)

    def run(self) -> None:
        """Work until stopped, then finish what is open."""
        while not self._stopping:
            self._turn()
        self._finish()

    def stop(self) -> None:
        """Ask `run` to end. Safe in a signal handler, and twice."""
        self._stopping = True
        self._wakeup.set()

    def _turn(self) -> None:
        self._wakeup.wait(TICK)
        self._wakeup.clear()
        now = Now(time.time(), time.monotonic())
        if self.engine.backlog < ENGINE_BYTES:
            for _ in range(TURN):
                received = self.receiver.take()
                if received is None:
                    break
                self._take(received, now)
            else:
                self._wakeup.set()  # more is waiting
        self._acknowledge()
        self._close_due(now)
        self._deliver(self.engine.completed())
        self.live.turn(now.mono, self.health, self.engine.preview)

    def _finish(self) -> None:
        """Settle what was received, close every window, and give the sinks time to write."""
        now = Now(time.time(), time.monotonic())
        while (received := self.receiver.take()) is not None:
            self._take(received, now)
        self._acknowledge()
        self.receiver.stop()
        for model, book in self._books.items():
            windows = book.flush()
            orphan = book.orphans(now, force=True)
            if self.config.collector.flush_on_exit:
                for window in [*windows, *([orphan] if orphan else [])]:
                    self.engine.close(model, window)
        until = time.monotonic() + self.config.collector.metric_timeout + EXIT_WAIT
        while not self.engine.idle and time.monotonic() < until:
            self._wakeup.wait(TICK)
            self._wakeup.clear()
            self._deliver(self.engine.completed())
        self.outbox.end()
        until = time.monotonic() + EXIT_WAIT
        late = [each.name for each in self._deliveries if not each.join(max(0.0, until - time.monotonic()))]
        if late:
            log.error("gave up waiting for %s; reports not written: %d", ", ".join(late), len(self.outbox))
        self.live.stop()
        self.engine.shutdown()
        log.info("stopped: %s", ", ".join(f"{name} {count}" for name, count in self.telemetry.snapshot().items()))

    # --- receive -----------------------------------------------------------------------------------------------------

    def _take(self, received: Received, now: Now) -> None:
        try:
            if received.kind == "data":
                self._take_message(decode(received.frames), now)
            elif received.kind == "control":
                if len(received.frames) != 1:
                    raise WireError("frames", f"{len(received.frames)} frames on the control socket")
                self._take_greeting(decode_greeting(received.frames[0]), received.peer, now)
            else:
                self.receiver.reply("admin", received.peer, pack(self._answer(received.frames)))
        except WireError as error:
            self.telemetry.count("rejected_messages", error.reason)
            log.debug("message rejected: %s", error)

    def _take_greeting(self, greeting: Greeting, peer: bytes, now: Now) -> None:
        if not self._wanted(greeting.topic):
            return
        stream = self._streams.get(greeting.stream)
        if stream is None:
            stream = first_contact(greeting, stream_seed(greeting.stream))
            self._remember(greeting.stream, stream)
        self._check_topic(stream, greeting.topic)
        book = self._book(greeting.topic)
        agent = greeting.topic.agent_id
        stream.greeted = True
        stream.issued = max(stream.issued, greeting.issued)
        self._heard[greeting.stream] = now.mono
        self._peers[greeting.stream] = peer
        self._count(book, agent, "lost", stream.advance(greeting.base - 1), now)
        for kind, reason, rows in stream.news(greeting.tally):
            self._count(book, agent, kind, rows, now, reason)
        if greeting.kind == "hello":
            book.hello(agent, greeting.stream, now)
        elif greeting.kind == "bye":
            book.goodbye(agent, greeting.stream)
            stream.ends_at = now.mono + GONE_AFTER
        self._acks.setdefault(greeting.stream, b"")

    def _take_message(self, message: Message, now: Now) -> None:
        if not self._wanted(message.topic):
            return
        if message.kind == "schema":
            if message.schema not in self._schemas:
                if len(self._schemas) >= SCHEMAS:
                    raise WireError("schemas", f"more than {SCHEMAS} schemas; restart to forget old ones")
                self._schemas[message.schema] = decode_schema(message.body, message.schema)
            return
        schema = self._schemas.get(message.schema)
        if schema is None:
            self._acks[message.stream] = message.schema  # not acknowledged: it comes again, after its schema
            raise WireError("schema_unknown", message.schema.hex())
        stream = self._streams.get(message.stream)
        if stream is None:
            stream = Stream(message.topic, message.first - 1, stream_seed(message.stream))
            self._remember(message.stream, stream)
        self._check_topic(stream, message.topic)
        self._heard[message.stream] = now.mono
        book = self._book(message.topic)
        self._settle(message, schema, stream, book, now)
        self._acks.setdefault(message.stream, b"")

    # --- settle: every row is in a window, or counted as late, lost or rejected --------------------------------------

    def _settle(self, message: Message, schema: Schema, stream: Stream, book: Book, now: Now) -> None:
        topic = message.topic
        agent = topic.agent_id
        skip, lost = stream.offer(message)
        self._count(book, agent, "lost", lost, now)
        for kind, reason, rows in stream.news(message.tally):
            self._count(book, agent, kind, rows, now, reason)
        fresh = message.rows - skip
        self.telemetry.count("messages")
        if not fresh:
            self.telemetry.count("duplicates", by=message.rows)
            return
        self.telemetry.count("rows", by=fresh)
        try:
            batch = intake.checked(message, schema)
            times, skewed = intake.settled(message, now.wall, self.config.collector.max_skew)
        except WireError as error:
            self._count(book, agent, "rejected", fresh, now, error.reason)
            return
        if skewed:
            self.telemetry.count("skewed", by=skewed)
        model = (topic.model, topic.version)
        for part in intake.split(batch, message.first, skip, times, book.rules.period):
            rows = part.batch.rows
            window = book.put(agent, message.stream, schema, part.start, rows, part.newest, now)
            if window is None:
                self.telemetry.count("late_or_conflicting", by=rows)
                continue
            self.engine.add(model, window, agent, part.batch, stream.seed, part.numbers)
        if schema.tags:
            self._tags.setdefault(model, {})[agent] = schema.tags

    def _count(self, book: Book, agent: str, kind: str, rows: int, now: Now, reason: str = "") -> None:
        if rows:
            book.count(agent, kind, rows, now, reason)
            self.telemetry.count(kind, reason, rows)

    def _wanted(self, topic: Topic) -> bool:
        if any(fnmatchcase(topic.model, glob) for glob in self.config.collector.models):
            return True
        self.telemetry.count("not_ours", by=1)
        return False

    def _check_topic(self, stream: Stream, topic: Topic) -> None:
        if stream.topic != topic:
            raise WireError("topic_changed", "a stream speaks for one model, version and agent")

    def _book(self, topic: Topic) -> Book:
        model = (topic.model, topic.version)
        book = self._books.get(model)
        if book is None:
            if len(self._books) >= self.config.limits.models:
                raise WireError("models", f"more than limits.models = {self.config.limits.models}")
            book = self._books[model] = Book(self.config.rules(topic.model))
        return book

    def _remember(self, key: bytes, stream: Stream) -> None:
        if len(self._streams) >= self.config.limits.streams:
            raise WireError("streams", f"more than limits.streams = {self.config.limits.streams}")
        self._streams[key] = stream

    def _acknowledge(self) -> None:
        if not self._acks:
            return
        share = max(LEAST_WINDOW, self.config.limits.inflight_bytes // max(1, len(self._peers)))
        for key, need in self._acks.items():
            peer, stream = self._peers.get(key), self._streams.get(key)
            if peer is not None and stream is not None:
                self.receiver.reply("control", peer, encode_ack(key, stream.row, share, need=need))
        self._acks.clear()
        self.receiver.flush()

    # --- close, compute, deliver -------------------------------------------------------------------------------------

    def _close_due(self, now: Now) -> None:
        if now.mono - self._started < SETTLE:
            return
        self._holding = self._holding and self._recovering(now)
        for key, stream in list(self._streams.items()):
            if stream.ends_at is not None and now.mono >= stream.ends_at:
                stream.ends_at, stream.left = None, True
                lost = stream.advance(stream.issued)
                self._count(self._book(stream.topic), stream.topic.agent_id, "lost", lost, now)
            if now.mono - self._heard.get(key, self._started) > (GONE_AFTER if stream.left else FORGET_AFTER):
                del self._streams[key]
                self._peers.pop(key, None)
                self._heard.pop(key, None)
        for model, book in self._books.items():
            for window in book.due(now, hold=self._holding):
                self.engine.close(model, window)
            orphan = book.orphans(now)
            if orphan is not None:
                self.engine.close(model, orphan)
            gone = book.forget(now, FORGET_AFTER)
            if gone:
                self.engine.forget(model, gone)

    def _recovering(self, now: Now) -> bool:
        """After a start: until `idle` has passed and every stream has delivered what it had, or gone silent."""
        idle = self.config.collector.idle
        if now.mono - self._started < idle:
            return True
        return any(
            stream.row < stream.issued and now.mono - self._heard.get(key, 0.0) < idle
            for key, stream in self._streams.items()
        )

    def _deliver(self, closed: list[Closed]) -> None:
        for each in closed:
            self.telemetry.count("windows")
            if each.points:
                tags = self._tags.get(each.model, {})
                self.outbox.append(each, {agent: tags[agent] for agent in each.rows if agent in tags})

    # --- admin -------------------------------------------------------------------------------------------------------

    def _answer(self, frames: list[bytes]) -> dict[str, Any]:
        """What other tools ask over the admin socket."""
        ask = unpack(frames[-1], "admin").get("ask")
        if ask == "plugins":
            return {"plugins": self.registry.table()}
        if ask == "health":
            return self.health()
        return self.live.answer(ask)

    def health(self) -> dict[str, Any]:
        """How the collector fares: endpoints, counters, sinks, and what limits its samples."""
        return {
            "pid": os.getpid(),
            "data": self.receiver.data,
            "control": self.receiver.control,
            "web": self.live.url,
            "streams": len(self._streams),
            "models": sorted(f"{model} {version}".strip() for model, version in self._books),
            "open_windows": sum(len(book.open) for book in self._books.values()),
            "backlog_bytes": self.engine.backlog + self.receiver.inbox_bytes,
            "outbox": len(self.outbox),
            "outbox_dropped": self.outbox.dropped,
            "sinks": {each.name: each.state for each in self._deliveries},
            "sample_rows_lowered_to": self.engine.smallest_sample,
            "counters": dict(self.telemetry.snapshot()),
        }


def sink_is_on(config: Config, name: str) -> bool:
    """A sink is used when the configuration has its table; the file sink also without; `enabled = false` turns off."""
    table = config.sinks.get(name)
    return name == DEFAULT_SINK if table is None else table.get("enabled", True) is not False


def load_plugins(config: Config) -> Registry:
    """All installed plugins; ConfigurationError when the configuration names one that is not there."""
    common = {"sinks": config.sinks, "data_dir": config.collector.data_dir}
    registry = Registry(lambda name: {**config.plugins.get(name, {}), **common})
    registry.load()
    check_names(registry, config.plugins, "plugins")
    check_names(registry, config.sinks, "sinks")
    return registry


def next_sequence(data_dir: Path) -> int:
    """The number after that of the newest file written by an earlier run."""
    numbers = [path.stem.rpartition("-")[2] for path in (data_dir / "anodot").glob("*-*.json")]
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=0)
