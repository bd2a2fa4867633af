"""Large copies use memory again, and never memory that somebody still holds."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from zmon._transport.buffer_pool import LARGE, BufferPool

MIB = 2**20


def large(seed: int, rows: int = 512) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 100)).astype(np.float32)


@pytest.mark.parametrize("kind", ["<f4", "<f8", "<f2", "<i8", "|u1", "|b1", "|S7"])
@pytest.mark.parametrize("rows", [1, 70_000])
def test_a_copy_has_the_bytes_whatever_the_layout(kind: str, rows: int) -> None:
    given = (np.arange(rows * 6) % 1000).reshape(rows, 6).astype(kind)
    for array in (given, np.asfortranarray(given), given[::-1, ::2], given[:, 0]):
        copy = BufferPool(MIB).copy(array)
        assert bytes(copy) == array.tobytes()
        assert len(copy) == array.nbytes
        assert not np.shares_memory(np.frombuffer(copy, dtype=np.uint8), given)


def test_memory_is_used_again_once_nobody_holds_it() -> None:
    buffers = BufferPool(MIB)
    first = buffers.copy(large(0))
    where = np.frombuffer(first, dtype=np.uint8).ctypes.data
    beside = memoryview(first)  # as a socket holds it
    del first
    other = buffers.copy(large(1))
    assert np.frombuffer(other, dtype=np.uint8).ctypes.data != where
    assert bytes(beside) == large(0).tobytes()
    del beside
    again = buffers.copy(large(2))
    assert np.frombuffer(again, dtype=np.uint8).ctypes.data == where
    assert bytes(other) == large(1).tobytes()
    assert bytes(again) == large(2).tobytes()


def test_what_is_kept_is_bounded() -> None:
    buffers = BufferPool(MIB)
    held = [buffers.copy(large(i, rows)) for i in range(8) for rows in (400, 700, 1500)]
    del held
    gc.collect()
    assert 0 < buffers.unused <= MIB


def test_small_ones_are_plain_bytes() -> None:
    assert type(BufferPool(MIB).copy(np.zeros(LARGE - 1, dtype=np.uint8))) is bytes


def test_threads_never_share_memory() -> None:
    buffers = BufferPool(4 * MIB)
    torn = []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        held: list[tuple[int, memoryview | bytes]] = []
        for number in range(300):
            value = seed * 1000 + number
            held.append((value, buffers.copy(np.full(LARGE // 4, value, dtype=np.int32))))
            if random.random() < 0.7:
                value, copy = held.pop(random.integers(len(held)))
                if not (np.frombuffer(copy, dtype=np.int32) == value).all():
                    torn.append(value)
            if len(held) > 20:
                held.clear()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not torn
