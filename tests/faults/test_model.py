"""Ring, cursor, stream and journal together, against every order of events a network and a crash can produce.

The real `Ring`, `Cursor` and `StreamPosition` are driven without sockets: messages and acknowledgements travel in order
over a link that may lose all that is under way; the collector may crash and is then what its journal says.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from zmon_collector.ingest.stream_position import StreamPosition

from zmon._transport.ring import OVERHEAD, Cursor, Ring, RingLayout, RingPiece
from zmon._wire.frames import Message, Topic

LAYOUT = RingLayout(b"schema", (("probabilities", "<f8", 2),))
TOPIC = Topic("m", "", "a")


class Delivery(RuleBasedStateMachine):
    @initialize(limit=st.integers(1, 12))
    def begin(self, limit: int) -> None:
        self.ring = Ring(limit * (OVERHEAD + 16))
        self.cursor = Cursor()
        self.cursor.window = 10**6
        self.link: deque[tuple[int, int, int]] = deque()  # first, rows, base
        self.acks: deque[int] = deque()
        self.connected = True
        # the collector: what is in memory, and what is in the journal
        self.stream = StreamPosition(0)
        self.taken: list[int] = []  # rows, in memory
        self.lost = 0
        self.journal: dict[str, Any] = {"row": 0, "taken": [], "lost": 0}

    # --- the publisher -----------------------------------------------------------------------------------------------

    @rule(rows=st.integers(1, 5))
    def publish(self, rows: int) -> None:
        self.ring.append(LAYOUT, RingPiece(rows, 0, ()), 16)

    @rule()
    def send(self) -> None:
        entry = self.cursor.peek(self.ring)
        if entry is not None:
            if self.connected:
                self.link.append((entry.first, entry.rows, min(self.ring.base, entry.first)))
            self.cursor.sent(entry)

    @precondition(lambda self: self.acks)
    @rule()
    def take_ack(self) -> None:
        self.cursor.acknowledge(min(self.acks.popleft(), self.ring.issued), 10**6)
        self.ring.release(self.cursor.acked)

    @rule()
    def go_back(self) -> None:
        """No progress, or a new subscription."""
        self.cursor.rewind(self.ring)

    # --- the link ----------------------------------------------------------------------------------------------------

    @rule(messages=st.booleans(), acks=st.booleans())
    def lose_what_is_under_way(self, messages: bool, acks: bool) -> None:
        if messages:
            self.link.clear()
        if acks:
            self.acks.clear()

    @rule(connected=st.booleans())
    def reconnect(self, connected: bool) -> None:
        self.connected = connected

    # --- the collector -----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.link)
    @rule()
    def receive(self) -> None:
        first, rows, base = self.link.popleft()
        skip, lost = self.stream.accept(Message(TOPIC, "batch", b"", b"", first, rows, base))
        self.lost += lost
        self.taken += range(first + skip, first + rows)

    @rule()
    def ping(self) -> None:
        self.lost += self.stream.write_off(self.ring.base - 1)

    @rule()
    def commit(self) -> None:
        self.journal = {"row": self.stream.row, "taken": list(self.taken), "lost": self.lost}
        self.acks.append(self.stream.row)

    @rule()
    def crash(self) -> None:
        self.link.clear()
        self.acks.clear()
        self.stream = StreamPosition(self.journal["row"])
        self.taken, self.lost = list(self.journal["taken"]), self.journal["lost"]

    # --- what must always hold ---------------------------------------------------------------------------------------

    @invariant()
    def no_row_twice_and_every_row_accounted_for(self) -> None:
        if not hasattr(self, "ring"):
            return
        assert len(self.taken) == len(set(self.taken))
        assert len(self.taken) + self.lost == self.stream.row
        assert self.cursor.acked <= self.journal["row"], "acknowledged, and not on disk"

    def teardown(self) -> None:
        """Let everything through: what was issued is taken or lost, and what is lost was pushed out of the ring."""
        if not hasattr(self, "ring"):
            return
        self.connected = True
        self.link.clear()
        for _ in range(3):
            self.cursor.rewind(self.ring)
            while self.cursor.peek(self.ring) is not None:
                self.send()
            while self.link:
                self.receive()
            self.ping()
            self.commit()
            while self.acks:
                self.take_ack()
        assert len(self.taken) + self.lost == self.ring.issued
        assert self.lost <= self.ring.dropped, "dropped is an upper bound"
        assert self.ring.nbytes == 0


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=300, stateful_step_count=60)
