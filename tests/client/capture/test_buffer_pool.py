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
        assert copy.tobytes() == array.tobytes()
        assert copy.flags.c_contiguous
        assert not np.shares_memory(copy, given)


def test_memory_is_used_again_once_nobody_holds_it() -> None:
    buffers = BufferPool(MIB)
    first = buffers.copy(large(0))
    where = first.ctypes.data
    beside = first[5:].data  # as a socket holds it
    del first
    other = buffers.copy(large(1))
    assert other.ctypes.data != where
    assert bytes(beside) == large(0)[5:].tobytes()
    del beside
    again = buffers.copy(large(2))
    assert again.ctypes.data == where
    assert other.tobytes() == large(1).tobytes()
    assert again.tobytes() == large(2).tobytes()


def test_an_empty_array_is_of_that_memory() -> None:
    buffers = BufferPool(MIB)
    first = buffers.empty((700, 100), np.dtype("f4"))
    where = first.ctypes.data
    assert (first.shape, first.dtype, first.flags.c_contiguous) == ((700, 100), np.dtype("f4"), True)
    del first
    again = buffers.empty((LARGE,), np.dtype("u1"))
    assert buffers.empty((3,), np.dtype("f8")).nbytes < LARGE, "small ones come from malloc"
    del again
    assert buffers.empty((350, 100), np.dtype("f8")).ctypes.data == where


def test_what_is_kept_is_bounded() -> None:
    buffers = BufferPool(MIB)
    held = [buffers.copy(large(i, rows)) for i in range(8) for rows in (400, 700, 1500)]
    del held
    gc.collect()
    assert 0 < buffers.unused <= MIB


def test_threads_never_share_memory() -> None:
    buffers = BufferPool(4 * MIB)
    torn = []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        held: list[tuple[int, np.ndarray]] = []
        for number in range(300):
            value = seed * 1000 + number
            held.append((value, buffers.copy(np.full(LARGE // 4, value, dtype=np.int32))))
            if random.random() < 0.7:
                value, copy = held.pop(random.integers(len(held)))
                if not (copy == value).all():
                    torn.append(value)
            if len(held) > 20:
                held.clear()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not torn
