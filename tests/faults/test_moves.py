"""A model moves between two collectors that are restarted and killed: no row and no count is in both, or in neither.

The real `Delivery` with its links talks to the real `StreamPosition` over sockets that are queues, on a clock of the
test's. Every collector is restarted with or without the model; a kill loses what is not in the journal.
"""

from __future__ import annotations

import copy
import struct
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import pytest
import zmq
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from zmon_collector.ingest.stream_position import StreamPosition, first_contact

from zmon._transport.conversion import Conversion, Loss
from zmon._transport.delivery import APART_AFTER, Delivery, Target
from zmon._transport.intake import Intake
from zmon._transport.ledger import Ledger
from zmon._transport.link import FIRST_CONTACT
from zmon._transport.ring import OVERHEAD, Ring, RingLayout, RingPiece
from zmon._transport.settings import Endpoint
from zmon._wire import control, frames
from zmon._wire.frames import Topic
from zmon.batch import Schema

STREAM = b"s" * frames.STREAM_BYTES
BODY = frames.encode_schema(Schema(classes=("a", "b")))
LAYOUT = RingLayout(frames.schema_hash(BODY), (("probabilities", "<f8", 2),))
ROW = 16  # bytes


class Socket:
    """One end of a socket of the publisher: a queue each way."""

    def __init__(self) -> None:
        self.inbox: deque[Any] = deque()
        self.sent: deque[Any] = deque()
        self.up = False

    def setsockopt(self, *_: object) -> None:
        pass

    def close(self, *_: object) -> None:
        pass

    def disable_monitor(self) -> None:
        pass

    def get_monitor_socket(self, _: int) -> Socket:
        self.monitor = Socket()
        return self.monitor

    def connect(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def poll(self, _: int) -> bool:
        return bool(self.inbox)

    def recv(self, _: int) -> Any:
        if not self.inbox:
            raise zmq.Again
        return self.inbox.popleft()

    recv_multipart = recv

    def send(self, message: Any, _: int, copy: bool = True) -> None:
        if not self.up:
            raise zmq.Again
        self.sent.append(message)

    send_multipart = send

    def event(self, number: int) -> None:
        self.monitor.inbox.append((struct.pack("=HI", number, 0), b""))


class Context:
    """Makes sockets, and finds them by what they are connected to."""

    def __init__(self) -> None:
        self.made: list[Socket] = []

    def socket(self, _: int) -> Socket:
        self.made.append(Socket())
        return self.made[-1]

    def find(self, endpoint: str) -> Socket:
        return next(each for each in reversed(self.made) if each.endpoint == endpoint)


class Poller:
    """Stands for a poller: the test gives all sockets as ready."""

    def register(self, *_: object) -> None:
        pass

    unregister = register

    def __contains__(self, _: object) -> bool:
        return False


class Books:
    """What a collector keeps of the stream, all of which is journaled."""

    def __init__(self) -> None:
        self.position: StreamPosition | None = None
        self.rows: list[int] = []
        self.lost = self.refused = 0
        self.counts: Counter[tuple[str, str]] = Counter()


class Collector:
    """One collector, as far as the stream goes. `takes` is what its configuration says of the model."""

    def __init__(self, name: str, context: Context, *, topic: Topic, takes: bool, glob: bool = False) -> None:
        self.name, self.takes, self.glob = name, takes, glob
        self.books = self.journal = Books()
        self.running = False
        self.refuses = False  # rows that it settles
        self.peer = False  # it was greeted since it began, so it can answer
        self._context = context
        self._topic = topic.encode()

    @property
    def data(self) -> Socket:
        return self._context.find(self.name)

    @property
    def control(self) -> Socket:
        return self._context.find(f"{self.name}.ctl")

    def start(self) -> None:
        self.running, self.peer = True, False
        self.books = copy.deepcopy(self.journal)
        for socket in (self.data, self.control):
            socket.up = True
            socket.event(zmq.EVENT_CONNECTED)
            socket.event(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self.subscribe()

    def subscribe(self, change: bytes = b"\x01") -> None:
        if self.takes or self.glob:
            self.data.inbox.append(change + (b"z1/" if self.glob else self._topic))

    def end(self) -> None:
        """The connections end, and what was under way is gone."""
        self.running = False
        self.subscribe(b"\x00")
        for socket in (self.data, self.control):
            socket.up = False
            socket.sent.clear()
            socket.event(zmq.EVENT_DISCONNECTED)
            socket.event(zmq.EVENT_CONNECT_RETRIED)

    def receive(self, count: int = 10**6) -> None:
        """Handle so many messages: those of the control socket may overtake others."""
        for _ in range(count):
            if self.control.sent:
                self._greeted(control.decode_greeting(self.control.sent.popleft()))
            elif self.data.sent:
                self._handle(frames.decode(self.data.sent.popleft()))
            else:
                break

    def _greeted(self, greeting: control.Greeting) -> None:
        self.peer = True
        if not self.takes:
            self._acknowledge()
            self.control.inbox.append(control.encode_decline(greeting.stream))
            return
        books = self.books
        books.position = books.position or first_contact(greeting, self.store)
        books.position.hand_over(greeting, self.store)
        books.lost += books.position.write_off(greeting.base - 1)
        self._count(greeting.tally)
        if greeting.kind == "bye":
            books.lost += books.position.write_off(greeting.issued)

    def _handle(self, message: frames.Message) -> None:
        if message.kind == "schema" or not self.takes:
            return
        position = self.books.position = self.books.position or StreamPosition(message.first - 1)
        skip, lost = position.accept(message)
        self.books.lost += lost
        self.books.rows += range(message.first + skip, message.first + message.rows)
        self.books.refused += message.rows - skip if self.refuses else 0
        self._count(message.tally)

    def _count(self, tally: Any) -> None:
        assert self.books.position is not None
        for kind, reason, rows in self.books.position.update_tally(tally):
            self.books.counts[kind, reason] += rows

    @property
    def store(self) -> bytes:
        return self.name.encode()

    def commit(self) -> None:
        self.journal = copy.deepcopy(self.books)
        if self.running and self.takes:
            self._acknowledge()

    def _acknowledge(self) -> None:
        position = self.journal.position
        if position is not None and self.peer:
            refused = {"r": (self.journal.refused, "")} if self.journal.refused else {}
            ack = control.encode_ack(
                STREAM, position.row, 10**6, store=self.store, tally=position.tally, refused=refused
            )
            self.control.inbox.append(ack)


class World:
    """A publisher, and collectors a and b; the model belongs to a."""

    def __init__(self, *, model: str = "m", glob: bool = False, limit: int = 1000) -> None:
        self.now = time.monotonic()  # as that of links, which note when they were opened
        self.context = Context()
        self.ring = Ring(limit * (OVERHEAD + ROW))
        self.ledger = Ledger("m", Intake(10**6))
        topic = Topic(model, "", "a")
        target = Target((Endpoint("a", "a.ctl"), Endpoint("b", "b.ctl")), None, topic)
        self.delivery = Delivery(target, STREAM, self.ring, ledger=self.ledger, schemas={LAYOUT.schema: BODY})
        self.delivery.open(self.context, Poller())  # type: ignore[arg-type]
        self.a = Collector("a", self.context, topic=topic, takes=True, glob=glob)
        self.b = Collector("b", self.context, topic=topic, takes=False, glob=glob)

    def publish(self, rows: int, *, sampled_out: int = 0, rejected: int = 0) -> None:
        for _ in range(rows):
            self.ring.append(LAYOUT, RingPiece(1, 0, (bytes(ROW),)), ROW)
        losses = [Loss("x", rejected, "")] if rejected else []
        self.ledger.add(Conversion((), sampled_out, losses), 0, issued=self.ring.issued, labels=False)

    def publishers_turn(self, seconds: float = 0.2) -> None:
        self.now += seconds
        self.delivery.step(set(self.delivery.sockets), self.now)

    def turns(self, count: int = 4, seconds: float = 0.3) -> None:
        """Everybody works, and what they say arrives."""
        for _ in range(count):
            self.publishers_turn(seconds)
            for collector in (self.a, self.b):
                if collector.running:
                    collector.receive()
                    collector.commit()
        self.publishers_turn(seconds)

    def stop(self, collector: Collector) -> None:
        """A proper end: what was received is settled, and the publisher reads the last acknowledgements."""
        collector.receive()
        collector.commit()
        self.publishers_turn()
        collector.end()

    def move(self, between: Callable[[], None] = lambda: None) -> tuple[Collector, Collector]:
        """As docs/scaling.md says; `between` happens after each step. Return the old and the new collector."""
        old, new = (self.a, self.b) if self.a.takes else (self.b, self.a)
        for collector, takes in ((old, False), (new, True)):
            if collector.running:
                self.stop(collector)
            between()
            collector.takes = takes
            collector.start()
            between()
        return old, new

    def check(self) -> None:
        """Let everything through; then each row, and each count, is at one collector."""
        for collector in (self.a, self.b):
            if not collector.running:
                collector.start()
        self.turns(8, 1.1)
        both = self.a.books, self.b.books
        rows = [row for books in both for row in books.rows]
        assert len(rows) == len(set(rows)), "a row is in both"
        assert len(rows) + sum(books.lost for books in both) == self.ring.issued
        tally = self.ledger.tally()
        expected = {
            ("sampled_out", ""): tally.get("sampled_out", 0),
            ("rejected", "x"): tally.get("rejected", {}).get("x", 0),
        }
        assert both[0].counts + both[1].counts == +Counter(expected)
        assert sum(self.ledger.entry.refused.values()) == sum(books.refused for books in both)
        assert self.ring.head == self.ring.tail, "rows are held for a collector that does not take them"
        assert self.delivery.acked == self.ring.issued


def test_a_young_publishers_rows_are_not_sent_again_when_its_model_moves() -> None:
    world = World()
    world.a.start()
    world.b.start()
    world.publish(190, sampled_out=30, rejected=40)
    world.turns(2, 0.1)
    assert len(world.a.books.rows) == 190
    world.move()
    world.publish(200, sampled_out=3, rejected=4)
    world.check()
    assert (len(world.a.books.rows), len(world.b.books.rows)) == (190, 200)
    assert world.b.books.counts == {("sampled_out", ""): 3, ("rejected", "x"): 4}


def test_what_is_rejected_during_a_move_is_counted_by_the_collector_that_hears_of_it() -> None:
    world = World()
    world.a.start()
    world.b.start()
    world.publish(0, sampled_out=100, rejected=100)  # without any row that could be acknowledged
    world.turns()
    world.move(lambda: world.publish(10, sampled_out=5, rejected=5))
    world.check()


def test_rows_that_a_killed_collector_has_on_disk_are_not_sent_to_the_next() -> None:
    world = World()
    world.a.start()
    world.b.start()
    world.publish(10)
    world.turns()
    world.publish(20, rejected=3)
    world.publishers_turn()
    world.a.receive()
    world.a.commit()
    world.a.control.inbox.clear()  # the acknowledgement is under way
    world.a.end()
    world.move()
    world.publish(30)
    world.check()
    assert (len(world.a.books.rows), len(world.b.books.rows)) == (30, 30)


@pytest.mark.parametrize("away", [0, 2, 9], ids="for {} turns".format)
def test_a_collector_that_begins_before_a_killed_one_is_back_waits_for_what_that_one_has(away: int) -> None:
    world = World()
    world.a.start()
    world.b.start()
    world.publish(10)
    world.turns()
    world.publish(20, rejected=3)
    world.publishers_turn()
    world.a.receive()
    world.a.commit()
    world.a.control.inbox.clear()  # the acknowledgement is under way
    world.a.end()
    world.a.takes, world.b.takes = False, True
    world.stop(world.b)
    world.b.start()
    world.publish(30)
    world.turns(away)
    world.a.start()
    world.check()
    assert (len(world.a.books.rows), len(world.b.books.rows)) == (30, 30)


def killed_with_rows_under_way() -> World:
    """Kill a, which has acknowledged 10 rows and may have 20 more, and let b take the model."""
    world = World()
    world.a.start()
    world.b.start()
    world.publish(10)
    world.turns()
    world.publish(20)
    world.publishers_turn()
    world.a.end()
    world.b.takes = True
    world.stop(world.b)
    world.b.start()
    return world


def test_a_collector_that_takes_over_does_not_wait_for_ever_for_one_that_was_killed() -> None:
    world = killed_with_rows_under_way()
    world.turns(20, 2.0)
    assert world.b.books.rows == list(range(11, 31))


def test_the_end_does_not_wait_for_what_a_killed_collector_has() -> None:
    world = killed_with_rows_under_way()
    world.delivery.closing = True
    world.turns()
    assert world.b.books.rows == list(range(11, 31))


def test_what_collectors_refuse_before_and_after_a_move_adds_up() -> None:
    world = World()
    world.a.refuses = world.b.refuses = True
    world.a.start()
    world.b.start()
    for _ in range(3):
        world.publish(10)
        world.turns()
        world.move()
    world.check()
    assert world.ledger.entry.refused == {"r": 30}


@pytest.mark.parametrize("old", ["a", "b"])
def test_a_collector_that_takes_the_model_back_counts_none_of_the_others_rows_as_lost(old: str) -> None:
    world = World()
    for collector in (world.a, world.b):
        collector.takes = collector.name == old
        collector.start()
    for _ in range(4):
        world.publish(50, sampled_out=2, rejected=1)
        world.turns()
        world.move(lambda: world.publish(1, rejected=1))
    world.check()
    assert world.a.books.lost == world.b.books.lost == 0


def test_a_new_collector_begins_where_one_ended_that_gave_up_the_model() -> None:
    """The new one was never there before."""
    world = World()
    world.a.start()
    world.publish(100, rejected=7)
    world.turns()
    world.stop(world.a)
    world.a.takes = False
    world.a.start()
    world.turns(3, APART_AFTER)
    world.b.takes = True
    world.b.start()
    world.publish(10)
    world.check()
    assert len(world.b.books.rows) == 10


def test_every_row_goes_to_both_collectors_that_take_a_model() -> None:
    """Also to the one that is away at first: what is held waits for it."""
    world = World()
    world.b.takes = True
    world.a.start()
    world.publish(100, rejected=7)
    world.turns(20, 1.0)
    world.b.start()
    world.turns()
    assert world.a.books.rows == world.b.books.rows == list(range(1, 101))
    assert world.a.books.counts == world.b.books.counts == {("rejected", "x"): 7}


def test_a_collector_of_other_models_that_subscribes_to_everything_holds_up_nothing() -> None:
    world = World(glob=True)
    world.a.start()
    world.b.start()
    world.publish(100)
    world.turns()
    assert world.delivery.acked == 100
    assert world.ring.head == world.ring.tail
    world.stop(world.b)
    world.b.start()
    world.publish(100)
    world.turns()
    assert (world.delivery.acked, world.ring.nbytes) == (200, 0)
    assert not world.delivery.is_awaited(world.now)
    world.move(lambda: world.turns(1))
    world.publish(5)
    world.check()


def test_the_end_waits_for_a_collector_that_restarts() -> None:
    world = World()
    world.a.start()
    world.publish(10)
    world.turns()
    world.publish(10, rejected=3)
    world.a.end()
    for _ in range(20):
        world.turns(1, 1.0)
        assert world.delivery.is_awaited(world.now)
    world.a.start()
    world.turns()
    assert not world.delivery.is_awaited(world.now)
    assert (len(world.a.books.rows), world.a.books.lost) == (20, 0)


def test_the_end_of_a_publisher_that_began_while_its_collector_restarts_waits_for_it() -> None:
    earlier, world = World(model="restarts"), World(model="restarts")
    world.publish(10)
    world.publishers_turn(FIRST_CONTACT + 1)
    assert not world.delivery.is_awaited(world.now), "no collector was ever reached"
    earlier.a.start()
    earlier.turns()
    assert world.delivery.is_awaited(world.now)
    world.a.takes = False
    world.a.start()
    world.publishers_turn()
    world.a.end()  # before its subscription arrived
    world.publishers_turn()
    assert world.delivery.is_awaited(world.now)
    world.a.takes = True
    world.a.start()
    world.turns()
    assert not world.delivery.is_awaited(world.now)
    assert len(world.a.books.rows) == 10


def test_the_end_waits_for_a_collector_that_does_not_know_all_counts() -> None:
    world = World()
    world.a.start()
    world.publish(10, rejected=3)
    world.turns()
    world.a.end()
    world.publishers_turn()
    assert not world.delivery.is_awaited(world.now), "nothing is left to say"
    world.publish(0, sampled_out=1)
    assert world.delivery.is_awaited(world.now)


def test_after_a_long_silence_of_a_connection_that_holds_nothing_is_sent_again() -> None:
    """A collector that has much to do answers late, and would have to read everything twice."""
    world = World()
    world.a.start()
    world.publish(10)
    world.turns()
    world.publish(5)
    for _ in range(8):
        world.publishers_turn(1.0)
    assert not world.delivery.connected
    underway = len(world.a.data.sent)
    world.a.commit()  # an answer to what it has read so far
    world.publishers_turn()
    assert world.delivery.connected
    assert len(world.a.data.sent) == underway > 0
    world.turns()
    assert world.delivery.acked == 15


def test_counts_that_only_the_end_would_tell_are_told_before_and_waited_for() -> None:
    """A collector that is killed after a goodbye, and before its commit, has lost what only the goodbye said."""
    world = World()
    world.a.start()
    world.publish(10)
    world.turns()
    world.delivery.closing = True
    world.publish(0, rejected=1)
    assert world.delivery.is_awaited(world.now)
    world.publishers_turn(0.001)
    world.a.receive()
    world.a.end()
    assert world.delivery.is_awaited(world.now)
    world.a.start()
    world.turns()
    assert not world.delivery.is_awaited(world.now)
    assert world.a.books.counts == {("rejected", "x"): 1}


def test_the_end_does_not_wait_for_a_collector_that_gave_up_the_model() -> None:
    world = World(model="given up")
    world.a.start()
    world.publish(10)
    world.turns()
    world.stop(world.a)
    world.a.takes = False
    world.a.start()
    world.publish(10)
    world.publishers_turn()
    assert world.delivery.is_awaited(world.now)
    world.turns(2, APART_AFTER)
    assert not world.delivery.is_awaited(world.now)


@pytest.mark.parametrize("moved", [False, True])
def test_a_collector_that_does_not_answer_is_told_what_was_left(moved: bool) -> None:
    world = World()
    world.a.start()
    world.b.start()
    world.publish(10, rejected=2)
    world.turns()
    if moved:
        world.move()
    owner = world.b if moved else world.a
    world.publish(5, rejected=1)
    for _ in range(10):
        world.publishers_turn(1.0)
    assert not world.delivery.connected
    world.delivery.say_goodbye(world.now)
    owner.receive()
    assert world.a.books.lost + world.b.books.lost + len(world.a.books.rows + world.b.books.rows) == 15
    assert world.a.books.counts + world.b.books.counts == {("rejected", "x"): 3}


class Moves(RuleBasedStateMachine):
    """Any order of calls, losses of connections, kills, restarts and moves."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(limit=30)
        self.world.a.start()
        self.world.b.start()

    def each(self) -> list[Collector]:
        return [self.world.a, self.world.b]

    @rule(rows=st.integers(0, 9), sampled_out=st.integers(0, 3), rejected=st.integers(0, 3))
    def publish(self, rows: int, sampled_out: int, rejected: int) -> None:
        self.world.publish(rows, sampled_out=sampled_out, rejected=rejected)

    @rule(seconds=st.sampled_from([0.0, 0.2, 1.1, 2.0]))
    def publishers_turn(self, seconds: float) -> None:
        self.world.publishers_turn(seconds)

    @rule(which=st.integers(0, 1), count=st.integers(1, 5))
    def receive(self, which: int, count: int) -> None:
        if self.each()[which].running:
            self.each()[which].receive(count)

    @rule(which=st.integers(0, 1))
    def commit(self, which: int) -> None:
        self.each()[which].commit()

    @rule(which=st.integers(0, 1))
    def kill_and_start(self, which: int) -> None:
        collector = self.each()[which]
        if collector.running:
            collector.end()
        collector.start()

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        collector = self.each()[which]
        if collector.running:
            self.world.stop(collector)
        collector.start()

    @rule(turns=st.integers(0, 3))
    def work(self, turns: int) -> None:
        self.world.turns(turns)

    @rule(which=st.integers(0, 1), refuses=st.booleans())
    def refuse(self, which: int, refuses: bool) -> None:
        self.each()[which].refuses = refuses

    @rule(pause=st.integers(0, 2))
    def move(self, pause: int) -> None:
        self.world.move(lambda: self.world.turns(pause))

    def teardown(self) -> None:
        self.world.check()


TestMoves = Moves.TestCase
TestMoves.settings = settings(max_examples=100, stateful_step_count=30)
