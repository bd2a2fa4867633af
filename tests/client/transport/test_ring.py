"""The ring and its cursors, alone and against a model that keeps everything in a list."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zmon._transport.ring import MERGE_ROWS, OVERHEAD, Cursor, Ring, RingLayout, RingPiece

A = RingLayout(b"schema-a", (("probabilities", "<f8", 2),))
B = RingLayout(b"schema-b", (("probabilities", "<f8", 2),))


def put(ring: Ring, rows: int = 1, size: int = 100, layout: RingLayout = A) -> None:
    ring.append(layout, RingPiece(rows, 0, [b"x" * size]), size)


def test_single_rows_gather_into_one_message() -> None:
    ring, cursor = Ring(2**20), Cursor()
    for _ in range(40):
        put(ring)
    entry = cursor.peek(ring)
    assert entry is not None
    assert (entry.first, entry.rows, len(entry.pieces)) == (1, 40, 40)


def test_a_message_once_taken_is_never_added_to() -> None:
    ring, cursor = Ring(2**20), Cursor()
    put(ring)
    entry = cursor.peek(ring)
    put(ring)
    assert entry is not None
    assert entry.rows == 1
    assert ring.tail == 2


def test_other_columns_or_too_many_rows_start_a_message() -> None:
    ring = Ring(2**20)
    put(ring)
    put(ring, layout=B)
    put(ring, layout=A)
    put(ring, rows=MERGE_ROWS)
    assert [ring.get(i).rows for i in range(4)] == [1, 1, 1, MERGE_ROWS]


def test_overflow_drops_the_oldest_and_moves_the_base() -> None:
    ring = Ring(10 * (1000 + OVERHEAD))
    for _ in range(25):
        put(ring, rows=MERGE_ROWS, size=1000)
    assert (ring.dropped, ring.base, ring.issued) == (15 * MERGE_ROWS, 15 * MERGE_ROWS + 1, 25 * MERGE_ROWS)
    assert ring.nbytes <= ring.limit


def test_a_piece_beyond_the_bound_is_dropped_at_once() -> None:
    ring = Ring(1000)
    put(ring, rows=5, size=2000)
    assert (ring.dropped, ring.base, ring.nbytes) == (5, 6, 0)


def test_the_window_limits_what_is_under_way() -> None:
    ring, cursor = Ring(2**20), Cursor()
    for _ in range(10):
        put(ring, rows=MERGE_ROWS, size=1000)
    sent = 0
    cursor.acknowledge(0, 3 * (1000 + OVERHEAD))
    while (entry := cursor.peek(ring)) is not None:
        cursor.sent(entry)
        sent += 1
    assert sent == 3
    cursor.acknowledge(MERGE_ROWS, 0)  # one came through, and now at most one message at a time
    assert cursor.peek(ring) is None
    cursor.acknowledge(3 * MERGE_ROWS, 0)
    assert cursor.peek(ring) is not None


class RingMachine(RuleBasedStateMachine):
    """Two collectors, one ring: each gets every row not dropped, in order, none twice unless it rewound."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = Ring(20_000)
        self.cursors = [Cursor(), Cursor()]
        self.got: list[list[int]] = [[], []]

    @rule(rows=st.integers(1, 300), size=st.integers(1, 5000), layout=st.sampled_from([A, B]))
    def publish(self, rows: int, size: int, layout: RingLayout) -> None:
        put(self.ring, rows, size, layout)

    @rule(which=st.integers(0, 1), window=st.integers(0, 8000))
    def send(self, which: int, window: int) -> None:
        cursor = self.cursors[which]
        cursor.window = window
        entry = cursor.peek(self.ring)
        if entry is not None:
            assert entry.first >= self.ring.base
            assert cursor.inflight == 0 or cursor.inflight + entry.nbytes <= window
            self.got[which] += range(entry.first, entry.last + 1)
            cursor.sent(entry)

    @rule(which=st.integers(0, 1))
    def acknowledge(self, which: int) -> None:
        if self.got[which]:
            self.cursors[which].acknowledge(self.got[which][-1], 4000)
            self.ring.release(min(cursor.acked for cursor in self.cursors))

    @rule(which=st.integers(0, 1))
    @precondition(lambda self: self.ring.issued)
    def reconnect(self, which: int) -> None:
        cursor = self.cursors[which]
        cursor.rewind(self.ring)
        self.got[which] = [row for row in self.got[which] if row <= cursor.acked]

    @invariant()
    def holds(self) -> None:
        ring = self.ring
        held = [ring.get(i) for i in range(ring.head, ring.tail)]
        assert sum(entry.nbytes for entry in held) == ring.nbytes <= ring.limit
        assert sum(entry.rows for entry in held) + ring.dropped + ring.delivered == ring.issued
        following = ring.base
        for entry in held:
            assert entry.first == following
            following = entry.last + 1
        for got in self.got:
            assert got == sorted(set(got)), "a row came twice or out of order"


TestRing = RingMachine.TestCase
TestRing.settings = settings(max_examples=150, stateful_step_count=60)
