"""The fast path returns what the general path returns for the same batch, and refuses what that refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zmon._capture import assembler
from zmon._capture.assembler import Assembler
from zmon._capture.fast_path import MESSAGE_BYTES
from zmon.errors import Rejected

P = np.random.default_rng(0).dirichlet(np.ones(3), 40)
X = np.random.default_rng(1).normal(size=(40, 5))
SIGNATURES: dict[str, tuple[Any, Any]] = {
    "float64": (P, X),
    "float32": (P.astype("f4"), X.astype("f4")),
    "whole numbers": (P, (X * 100).astype("i4")),
    "no inputs": (P, None),
    "Fortran order": (np.asfortranarray(P), np.asfortranarray(X)),
    "every second row": (P[::2], X[::2]),
    "one row": (P[:1], X[:1]),
    "float16": (P.astype("f2"), X.astype("f2")),
    "big-endian": (P.astype(">f8"), X.astype(">f4")),
    "a column of inputs": (P, X[:, 0]),
    "several messages": (np.tile(P, (3000, 1)), np.tile(X, (3000, 1))),
}


def fresh(classes: int = 3) -> Assembler:
    options: dict[str, Any] = dict.fromkeys(("features", "include", "exclude"))
    return Assembler(task="classification", classes=classes, threshold=0.5, tags={}, sample_rate=1.0, **options)


def pieces(one: Assembler, p: Any, x: Any) -> Any:
    made, sampled_out = one.assemble(7, p, x)
    assert not sampled_out
    return [(layout, piece.rows, piece.ts, list(piece.buffers), nbytes) for layout, piece, nbytes in made]


@pytest.mark.parametrize(("p", "x"), SIGNATURES.values(), ids=SIGNATURES.keys())
def test_a_signature_seen_before_gives_the_same_pieces(p: Any, x: Any) -> None:
    one = fresh()
    pieces(one, P[:7], None)  # another signature between
    first = pieces(one, p, x)
    again = pieces(one, p, x)
    assert again == first == pieces(fresh(), p, x)
    other = p[::-1], None if x is None else x[::-1]
    assert pieces(one, *other) == pieces(fresh(), *other), "values are not remembered, only the signature"


def test_common_signatures_take_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    one = fresh()
    for name in ("float64", "float32", "whole numbers", "no inputs", "Fortran order", "one row"):
        pieces(one, *SIGNATURES[name])
        with monkeypatch.context() as patched:
            patched.setattr(assembler, "as_array", None)  # the general path would call it
            pieces(one, *SIGNATURES[name])


BAD: dict[str, tuple[Any, Any]] = {
    "NaN": (np.where(np.arange(3) == 1, np.nan, P), X),
    "infinite": (np.where(np.arange(3) == 1, np.inf, P), X),
    "above 1": (P + 1.0, X),
    "other lengths": (P, X[:10]),
    "other width": (P[:, :2], X),
    "a single number": (np.float64(0.5) * np.ones(()), X),
}


@pytest.mark.parametrize(("p", "x"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_is_refused_for_the_same_reason(p: Any, x: Any) -> None:
    with pytest.raises(Rejected) as expected:
        pieces(fresh(), p, x)
    one = fresh()
    pieces(one, P, X)
    with pytest.raises(Rejected) as found:
        pieces(one, p, x)
    assert found.value.reason == expected.value.reason


def test_rows_without_inputs_speak_of_the_columns_that_came_last() -> None:
    one = fresh()
    narrow, wide = X[:, :2], X
    for x in (narrow, wide, narrow, wide):
        ((with_inputs, *_),) = pieces(one, P, x)
        ((without, *_),) = pieces(one, P, None)
        assert without.schema == with_inputs.schema


def test_a_large_batch_on_the_fast_path_is_cut() -> None:
    one = fresh()
    pieces(one, P, X)
    large = SIGNATURES["several messages"]
    assert large[1].nbytes > MESSAGE_BYTES
    assert len(pieces(one, *large)) > 1
