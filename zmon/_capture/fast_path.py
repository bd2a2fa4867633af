"""The common batch taken short: plain arrays of dtypes and widths met before, whose layout is known. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmon._capture.inputs import FeaturePlan
from zmon._transport.buffer_pool import BufferPool
from zmon._transport.ring import RingLayout, RingPiece
from zmon._wire.frames import MAX_ROWS
from zmon.batch import SLACK

FORMS = 64  # that are remembered; further ones go the long way

Form = tuple[Any, ...]  # dtype and width of the probabilities, and of the inputs or the plan that stands for them


class FastPath:
    """Layouts by form. What is wrong with a batch, or out of the common, is for the long way to say.

    Parameters
    ----------
    message_bytes : int
        Larger batches are cut, the long way.
    snapshots : BufferPool
    """

    def __init__(self, message_bytes: int, snapshots: BufferPool) -> None:
        self._message_bytes = message_bytes
        self._take = snapshots.take
        self._known: dict[Form, tuple[RingLayout, FeaturePlan]] = {}

    def take(
        self, probabilities: Any, inputs: Any, latest: FeaturePlan, now: int
    ) -> tuple[RingLayout, FeaturePlan, RingPiece, int] | None:
        """Layout, plan, snapshot and its bytes; None unless the form is known and the values are good."""
        if type(probabilities) is not np.ndarray:
            return None
        shape = probabilities.shape
        if inputs is None:
            form: Form = (probabilities.dtype, shape[1:], latest)
        elif type(inputs) is np.ndarray:
            form = (probabilities.dtype, shape[1:], inputs.dtype, inputs.shape[1:])
        else:
            return None
        known = self._known.get(form)
        if known is None or not shape:
            return None
        rows, flat = shape[0], probabilities.ravel()
        # One pass settles NaN, infinities and most values that are no probabilities: the squares of a row sum to at
        # most 1. The collector checks the range exactly.
        if not 0 < rows <= MAX_ROWS or not flat.dot(flat) <= rows * SLACK:
            return None
        nbytes = probabilities.nbytes if inputs is None else probabilities.nbytes + inputs.nbytes
        if nbytes > self._message_bytes:
            return None
        if inputs is None:
            buffers = [self._take(probabilities)]
        elif inputs.shape[0] == rows:
            buffers = [self._take(probabilities), self._take(inputs)]
        else:
            return None
        return known[0], known[1], RingPiece(rows, now, buffers), nbytes

    def learn(self, probabilities: Any, inputs: Any, layout: RingLayout, plan: FeaturePlan) -> None:
        """Remember what the long way made of a batch without labels, ids and the like."""
        if len(self._known) >= FORMS or type(probabilities) is not np.ndarray:
            return
        if probabilities.dtype not in (np.float32, np.float64) or probabilities.shape[1:] == (1,):
            return
        given = (probabilities.dtype, probabilities.shape[1:])
        if inputs is None:
            self._known[*given, plan] = layout, plan
        elif type(inputs) is np.ndarray and inputs.ndim == 2 and inputs.dtype.str == layout.arrays[1][1]:
            self._known[*given, inputs.dtype, inputs.shape[1:]] = layout, plan
