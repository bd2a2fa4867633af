"""A whole collector without sockets and threads, moved step by step on a clock of the test's.

`Stepped` builds the real `Service`. Its sockets, page and readers do not start; its database has no thread, and commits
when the test says so; its metrics run as coroutines, so one that hangs is left standing inside its own call, as a
thread would be. What a kill leaves is the connection to the database, and that alone.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import tempfile
import time as real_time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

import greenlet
import numpy as np
from zmon_collector import build, pauses
from zmon_collector.clock import Clock as NeverBack
from zmon_collector.compute import batcher, executors
from zmon_collector.config import Config, parse
from zmon_collector.dashboard.live import Live
from zmon_collector.dashboard.web.site import Site
from zmon_collector.delivery import report_codec
from zmon_collector.delivery.dispatch import Deliveries
from zmon_collector.ingest import checkpoint_policy
from zmon_collector.ingest.receiver import ReceivedMessage, Receiver
from zmon_collector.plugins import Registry
from zmon_collector.service import Service
from zmon_collector.storage.database import Database
from zmon_collector.storage.integrity import unseal
from zmon_collector.watchdog import Watchdog
from zmon_plugins.metrics import rows as row_counts

import zmon
from tests.support.databases import in_memory
from zmon._wire import control, frames
from zmon.batch import Batch, Schema
from zmon.contract import Context, Metric, Report, Value
from zmon.hooks import hookimpl

T0 = 1_700_000_040  # a minute begins
NANO = 10**9
FOREVER = "100000d"


class Killed(BaseException):
    """The collector's process ends here."""


# --- time ------------------------------------------------------------------------------------------------------------


class Clock:
    """Stands for the module `time` in all modules of the collector."""

    def __init__(self) -> None:
        self.wall, self.mono = float(T0), 1000.0

    def time(self) -> float:
        return self.wall

    def time_ns(self) -> int:
        return int(self.wall * NANO)

    def monotonic(self) -> float:
        return self.mono

    def sleep(self, seconds: float) -> None:
        self.goes(seconds)

    def goes(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(real_time, name)


@contextlib.contextmanager
def replaced(*values: tuple[Any, str, Any]) -> Iterator[None]:
    """Replace attributes, which must be there: a name that moved would disarm a test without a word."""
    before = []
    for owner, name, value in values:
        assert hasattr(owner, name), f"{owner.__name__}.{name} is gone; this test needs it or its successor"
        before.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)


def clocks(clock: Clock) -> list[tuple[Any, str, Any]]:
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("zmon_collector")]
    return [(module, "time", clock) for module in modules if getattr(module, "time", None) is real_time]


# --- the disk --------------------------------------------------------------------------------------------------------


class Disk(Database):
    """The database without its thread: the test commits, some jobs at a time, and may kill just after it."""

    connection: sqlite3.Connection  # given to the class: it outlives every collector

    def open(self) -> None:
        self._connection = self.connection
        self._connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        self._measure()

    def start(self) -> None:
        self.dies = False

    def is_alive(self) -> bool:
        return True

    def call(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        answer: list[Any] = []
        self.submit(work, answer.append)
        while not answer:
            assert self.commit(1000), "a job has no outcome"
        return answer[0]

    @property
    def jobs(self) -> int:
        return len(self._jobs)

    def commit(self, most: int = 1000) -> bool:
        """Commit at most so many jobs in one transaction; whether there were any."""
        group = [self._jobs.popleft() for _ in range(min(most, len(self._jobs)))]
        if group and self.dies:
            group[0].done = self._die
        if group:
            self._commit(group)
        elif self._deletions:
            self._delete_slice()
        else:
            return False
        assert not self.broken, self.broken
        return True

    def _die(self, _: Any) -> None:
        raise Killed


# --- the metrics -----------------------------------------------------------------------------------------------------


class Lane(Executor):
    """An executor whose threads are coroutines: `work` runs them until they end, or hang."""

    lanes: list[Lane]  # of the collector that runs; given to the class

    def __init__(self, workers: int, thread_name_prefix: str = "") -> None:
        self._workers = workers
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._hanging: list[greenlet.greenlet] = []
        self.lanes.append(self)

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._waiting.append((future, lambda: call(*arguments, **options)))
        return future

    def work(self) -> bool:
        """Run the next task that waits for a free thread; whether there was one."""
        if not self._waiting or len(self._hanging) >= self._workers:
            return False
        future, call = self._waiting.popleft()
        if future.set_running_or_notify_cancel():
            self._go_on(greenlet.greenlet(lambda: self._run(future, call)))
        return True

    def resume(self) -> None:
        """Let what hangs return after all."""
        hanging, self._hanging = self._hanging, []
        for thread in hanging:
            self._go_on(thread)

    def _go_on(self, thread: greenlet.greenlet) -> None:
        thread.switch()
        if not thread.dead:
            self._hanging.append(thread)

    @staticmethod
    def _run(future: Future[Any], call: Callable[[], Any]) -> None:
        try:
            result = call()
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass


def hang() -> None:
    """Leave the calling coroutine standing here until it is resumed."""
    thread = greenlet.getcurrent()
    assert thread.parent is not None
    thread.parent.switch()


class Wakeup:
    """Stands for the event for which the collector's thread waits between its turns."""

    def wait(self, timeout: float | None = None) -> bool:
        hang()
        return True

    def set(self) -> None:
        pass

    clear = set


class Kept(zmon.MetricBase[list[Any]]):
    """The sound metric: each row by its number, how often it is there, and with which option it was computed."""

    name = "kept"
    needs = frozenset({"inputs"})

    def create(self, ctx: Context) -> list[Any]:
        return [[], 0.0]

    def update(self, acc: list[Any], batch: Batch, ctx: Context) -> list[Any]:
        numbers = batch.inputs[:, batch.schema.numeric.index("number")].astype(int).tolist()
        return [[*acc[0], *numbers], acc[1] + ctx.options.get("scale", 1) * batch.rows]

    def merge(self, left: list[Any], right: list[Any]) -> list[Any]:
        return [[*left[0], *right[0]], left[1] + right[1]]

    def result(self, acc: list[Any], ctx: Context) -> Iterable[Value]:
        numbers, scaled = acc
        for number in sorted(set(numbers)):
            yield Value("row", float(numbers.count(number)), feat_name=str(number))
        yield Value("scaled", scaled)
        ctx.memory["total"] = ctx.memory.get("total", 0) + len(numbers)
        yield Value("total", float(ctx.memory["total"]))


class Count(zmon.MetricBase[int]):
    """Counts rows, unless it misbehaves as the test says."""

    needs = frozenset({"inputs"})

    def __init__(self, name: str, moods: Mapping[str, str]) -> None:
        self.name = name
        self._moods = moods  # of the process: (hook: what it does there)

    def _feel(self, hook: str) -> str:
        mood = self._moods.get(hook, "")
        if mood == "raise":
            raise ValueError(f"{self.name} fails in {hook}")
        if mood == "hang":
            hang()
        return mood

    def create(self, ctx: Context) -> int:
        return 0

    def update(self, acc: int, batch: Batch, ctx: Context) -> Any:
        return {1, 2} if self._feel("update") == "nonsense" else acc + batch.rows

    def merge(self, left: int, right: int) -> Any:
        return object() if self._feel("merge") == "nonsense" else left + right

    def result(self, acc: int, ctx: Context) -> Iterable[Any]:
        if self._feel("result") == "nonsense":
            yield from (Value(self.name, float("nan")), Value("", 1.0))
            yield "no value"
        if self._moods.get("memory"):
            ctx.memory["odd"] = {"set": {1}, "surrogate": "\ud800", "number": 2**70}[self._moods["memory"]]
        yield Value(self.name, float(acc))


def plugin(*metrics: Metric[Any]) -> object:
    class Plugin:
        @hookimpl
        def register_metrics(self, register: Any, options: Any) -> None:
            for metric in metrics:
                register(metric)

    return Plugin()


# --- publishers ------------------------------------------------------------------------------------------------------

P = ("number",)
SCHEMAS = (
    Schema(classes=("no", "yes"), features=P, kinds=("numeric",)),
    Schema(classes=("no", "yes"), features=("extra", *P), kinds=("numeric",) * 2),
    Schema(task="regression", features=P, kinds=("numeric",)),  # conflicts with the others
)


@dataclass
class Piece:
    """A message of a publisher: its rows are numbered, and each has its own time."""

    first: int
    numbers: list[int]
    times: list[float]
    schema: Schema

    @property
    def last(self) -> int:
        return self.first + len(self.numbers) - 1

    def frames(self, topic: bytes, stream: bytes, base: int, tally: Mapping[str, Any]) -> list[list[bytes]]:
        n, body = len(self.numbers), frames.encode_schema(self.schema)
        columns = {
            "inputs": np.column_stack([np.array(self.numbers, float)] * len(self.schema.features)),
            "timestamps": np.array([int(time * NANO) for time in self.times], np.int64),
        }
        if self.schema.classes:
            columns["probabilities"] = np.full((n, 2), 0.5)
        else:
            columns["predictions"] = np.full(n, 0.5)
        described = [(name, column.dtype.str, list(column.shape)) for name, column in columns.items()]
        position: dict[str, Any] = {"first": self.first, "rows": n, "base": min(base, self.first), "ts": 0}
        batch = frames.encode_batch(
            topic,
            stream=stream,
            schema=frames.schema_hash(body),
            arrays=described,
            buffers=[column.tobytes() for column in columns.values()],
            tally=tally,
            **position,
        )
        return [frames.encode_schema_message(topic, stream, body), [bytes(each) for each in batch]]


@dataclass
class Sender:
    """What the collector sees of a publisher: a ring of messages, a position, and a goodbye."""

    model: str
    agent: str
    stream: bytes
    ring: deque[Piece] = field(default_factory=deque)
    issued: int = 0
    sent: int = 0  # of the rows on their way
    acked: int = 0
    store: bytes = b""
    tally: dict[str, Any] = field(default_factory=dict)
    closing: bool = False  # it publishes no more
    leaving: bool = False  # it has said goodbye, and sends no more unless that was lost in a kill
    gone: bool = False  # and the collector has that on disk
    schemas: list[Schema] = field(default_factory=list)  # sent on this connection

    @property
    def topic(self) -> bytes:
        return frames.Topic(self.model, "", self.agent).encode()

    @property
    def base(self) -> int:
        return self.ring[0].first if self.ring else self.issued + 1

    def publish(self, numbers: list[int], times: list[float], schema: Schema) -> None:
        self.ring.append(Piece(self.issued + 1, numbers, times, schema))
        self.issued += len(numbers)

    def next_piece(self) -> Piece | None:
        return next((piece for piece in self.ring if piece.last > self.sent), None)

    def greeting(self, kind: str) -> bytes:
        return control.encode_greeting(
            kind,
            topic=self.topic,
            stream=self.stream,
            base=self.base,
            acked=self.acked,
            issued=self.issued,
            clock=0,
            tally=self.tally,
            store=self.store,
        )

    def acknowledge(self, ack: control.Ack) -> None:
        self.store = ack.store
        self.acked = min(max(self.acked, ack.row), self.issued)
        while self.ring and self.ring[0].last <= self.acked:
            self.ring.popleft()
        if ack.need:
            self.schemas.clear()
            self.sent = self.acked

    def connect(self) -> None:
        """A connection begins, or the last one ended with all that was under way."""
        self.sent = self.acked
        self.schemas.clear()


# --- the collector ---------------------------------------------------------------------------------------------------

SMALL = (  # so few rows reach every bound
    (batcher, "MICRO_ROWS", 4),
    (batcher, "FOLD_AT", 2),
    (batcher, "QUEUE_BYTES", 4096),
    (checkpoint_policy, "CHECKPOINT_BYTES", 160),
    (pauses, "ENGINE_BYTES", 1024),
)


class Stepped:
    """A collector that takes a step when the test says so, dies, and starts again on the same disk."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.clock = Clock()
        self.moods: dict[str, str] = {}
        self.senders: list[Sender] = []
        self.connection = in_memory(check_same_thread=False)
        self.options = options
        disk = type("Disk", (Disk,), {"connection": self.connection})
        none = lambda *_: None  # noqa: E731 - stands for what a test does not start
        self._lanes: list[Lane] = []
        lane = type("Lane", (Lane,), {"lanes": self._lanes})
        self._folder = tempfile.TemporaryDirectory()
        self._patches = contextlib.ExitStack()
        self._patches.enter_context(
            replaced(
                *SMALL,
                (build, "Database", disk),
                (build, "Clock", lambda: NeverBack(self.clock.time, self.clock.monotonic)),
                (executors, "ThreadPoolExecutor", lane),
                *((owner, "start", none) for owner in (Receiver, Live, Site, Deliveries, Watchdog)),
                (Live, "turn", none),
                *clocks(self.clock),
            )
        )
        self.deaths = 0
        self._start()

    def config(self) -> Config:
        return parse({**self.options, "collector": {**self.options["collector"], "data_dir": self._folder.name}})

    def _start(self) -> None:
        self._lanes.clear()
        registry = Registry()
        registry.register(row_counts, "rows", row_counts.__name__)
        registry.register(plugin(Kept()), "kept")
        registry.register(plugin(Count("odd", self.moods), Count("neighbour", {})), "odd")
        self.service = Service(self.config(), registry, self.config)
        self.service.receiver.reply = self._reply  # type: ignore[method-assign]
        self.service.start()
        self.service.wakeup = Wakeup()  # type: ignore[assignment]
        self._thread = greenlet.greenlet(self.service.run)  # which stands where it waits for the next turn
        self._thread.switch()
        self.disk: Any = self.service.database

    def end(self) -> None:
        self.service.receiver.close()
        self._patches.close()
        self._folder.cleanup()
        self.connection.close()

    def kill(self) -> None:
        """The process ends here, and starts again; publishers that are there connect."""
        self.deaths += 1
        self.service.receiver.close()
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self._start()
        self._note_goodbyes()
        for sender in self.senders:
            if not sender.gone:
                sender.leaving = False
                sender.connect()
                self.greet(sender, "hello")

    # --- publishers --------------------------------------------------------------------------------------------------

    def join(self, model: str, agent: str) -> Sender:
        sender = Sender(model, agent, len(self.senders).to_bytes(16, "big"))
        self.senders.append(sender)
        self.greet(sender, "hello")
        return sender

    def greet(self, sender: Sender, kind: str) -> None:
        self._lay("control", [sender.greeting(kind)], sender.stream)

    def leave(self, sender: Sender) -> None:
        sender.closing = sender.leaving = True
        self.greet(sender, "bye")

    def send(self, sender: Sender) -> bool:
        """Send the next message of a publisher; whether there was one."""
        piece = sender.next_piece()
        if piece is None:
            return False
        schema, batch = piece.frames(sender.topic, sender.stream, sender.base, sender.tally)
        if piece.schema not in sender.schemas:
            sender.schemas.append(piece.schema)
            self._lay("data", schema)
        self._lay("data", batch)
        sender.sent = piece.last
        return True

    def _lay(self, kind: str, message: list[bytes], peer: bytes = b"") -> None:
        self.service.receiver.inbox.append(ReceivedMessage(kind, message, peer))

    def _reply(self, kind: str, peer: bytes, frame: bytes) -> None:
        ack = control.decode_ack(frame)
        for sender in self.senders:
            if sender.stream == ack.stream:
                sender.acknowledge(ack)

    # --- steps -------------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        self._thread.switch()
        assert not self.service.failed and not self._thread.dead, "the collector has ended by itself"

    def work(self, most: int = 10**6) -> int:
        """Run steps of metrics; return how many there were."""
        for done in range(most):
            if not any(lane.work() for lane in list(self._lanes)):
                return done
        return most

    def catch_up(self) -> None:
        """Take turns until sound metrics have done what there is to do: they are quick, measured by the clock."""
        self.turn()
        while self.work():
            self.turn()

    def resume(self) -> None:
        for lane in list(self._lanes):
            lane.resume()

    def commit(self, most: int = 1000, *, dies: bool = False) -> None:
        """Commit at most so many jobs, one by one; with `dies`, the process ends just after the last of them."""
        for left in reversed(range(min(most, max(1, self.disk.jobs)))):
            self.disk.dies = dies and not left
            try:
                self.disk.commit(1)
            except Killed:
                self.kill()
                return
            self._note_goodbyes()
        self.disk.dies = False

    def _note_goodbyes(self) -> None:
        for sender in self.senders:
            if sender.leaving and not sender.gone:
                row = self.connection.execute("SELECT gone FROM streams WHERE id = ?", (sender.stream,)).fetchone()
                sender.gone = row is not None and bool(row[0])

    def damage(self, table: str, row: int, column: int, bit: int) -> bool:
        """Flip a bit in a row of the disk; whether there was one."""
        rows = self.connection.execute(f"SELECT * FROM {table}").fetchall()
        if not rows:
            return False
        whole = list(rows[row % len(rows)])
        places = [i for i, value in enumerate(whole) if isinstance(value, bytes | str) and value]
        if not places:
            return False
        place = places[column % len(places)]
        data = bytearray(whole[place] if isinstance(whole[place], bytes) else whole[place].encode())
        data[bit // 8 % len(data)] ^= 1 << bit % 8
        names = [name for _, name, *_ in self.connection.execute(f"PRAGMA table_info({table})")]
        same = " AND ".join(f'"{name}" IS ?' for name in names)
        value = "CAST(? AS TEXT)" if isinstance(whole[place], str) else "?"
        with contextlib.suppress(sqlite3.IntegrityError):  # another row has this key
            self.connection.execute(
                f'UPDATE {table} SET "{names[place]}" = {value} WHERE {same}', (bytes(data), *whole)
            )
        return True

    def reload(self, options: Mapping[str, Any]) -> None:
        self.options = options
        self.service.request_reload()

    # --- what came of it ---------------------------------------------------------------------------------------------

    @property
    def at_rest(self) -> bool:
        """Whether nothing is on its way to a report."""
        models = self.service.ingestor.models.values()
        return (
            not self.service.receiver.inbox
            and self.service.recovery is None
            and self.service.engine.idle
            and not self.disk.jobs
            and not len(self.service.ingestor.sessions)
            and not any(model.windows.open or model.windows.unplaced for model in models)
        )

    def reports(self) -> list[Report]:
        """The reports on disk, in the order in which they were written."""
        rows = self.connection.execute("SELECT crc, data FROM reports ORDER BY sequence").fetchall()
        return [report_codec.decode(unseal(*row)) for row in rows]
