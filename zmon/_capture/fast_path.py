"""A fast path for the common batch: plain arrays whose dtypes and widths were seen before. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmon._capture.inputs import FeaturePlan
from zmon._transport.buffer_pool import BufferPool
from zmon._transport.ring import RingLayout, RingPiece
from zmon._wire.checks import MAX_ROWS
from zmon.batch import SLACK, Array

MESSAGE_BYTES = 4 * 2**20  # a larger batch travels as several messages, which only the general path makes
MOST_LAYOUTS = 64  # remembered; batches of further signatures always take the general path

Signature = tuple[
    Any, ...
]  # dtype and width of the probabilities, and of the inputs or, without inputs, the latest plan


class FastPath:
    """Layouts by signature. Anything invalid or unusual falls through to the general path."""

    def __init__(self, buffers: BufferPool) -> None:
        self._buffers = buffers
        self._layouts: dict[Signature, tuple[RingLayout, FeaturePlan]] = {}

    def assemble(
        self, probabilities: Any, inputs: Any, latest: FeaturePlan, now: int
    ) -> tuple[RingLayout, FeaturePlan, RingPiece, int] | None:
        """Return layout, plan, snapshot and its bytes; None if the signature is new or a value is invalid."""
        if type(probabilities) is not np.ndarray:
            return None
        shape = probabilities.shape
        if inputs is None:
            signature: Signature = (probabilities.dtype, shape[1:], latest)
        elif type(inputs) is np.ndarray:
            signature = (probabilities.dtype, shape[1:], inputs.dtype, inputs.shape[1:])
        else:
            return None
        learned = self._layouts.get(signature)
        if learned is None or not shape:
            return None
        rows, flat = shape[0], probabilities.ravel()
        # One pass rules out NaN, infinities and most values that are not probabilities: the squares of a row sum to
        # at most 1. The collector checks the range exactly.
        if not 0 < rows <= MAX_ROWS or not flat.dot(flat) <= rows * SLACK:
            return None
        nbytes = probabilities.nbytes if inputs is None else probabilities.nbytes + inputs.nbytes
        if nbytes > MESSAGE_BYTES:
            return None
        if inputs is None:
            buffers = [self._copy(probabilities)]
        elif inputs.shape[0] == rows:
            buffers = [self._copy(probabilities), self._copy(inputs)]
        else:
            return None
        return learned[0], learned[1], RingPiece(rows, now, buffers), nbytes

    def _copy(self, array: Array) -> memoryview:
        return self._buffers.copy(array).reshape(-1).view(np.uint8).data

    def learn(self, probabilities: Any, inputs: Any, layout: RingLayout, plan: FeaturePlan) -> None:
        """Remember the layout that the general path gave a batch without labels, ids and the like."""
        if len(self._layouts) >= MOST_LAYOUTS or type(probabilities) is not np.ndarray:
            return
        if probabilities.dtype not in (np.float32, np.float64) or probabilities.shape[1:] == (1,):
            return
        outputs = (probabilities.dtype, probabilities.shape[1:])
        if inputs is None:
            self._layouts[*outputs, plan] = layout, plan
        elif type(inputs) is np.ndarray and inputs.ndim == 2 and inputs.dtype.str == layout.arrays[1][1]:
            self._layouts[*outputs, inputs.dtype, inputs.shape[1:]] = layout, plan
