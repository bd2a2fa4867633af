"""The ends of worker processes that do not run `atexit` hooks."""

from __future__ import annotations

import sys
from collections.abc import Callable


def at_end(close: Callable[[], None]) -> None:
    """Call `close` when this process ends, if it is a worker of multiprocessing, joblib, billiard or celery."""
    process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    # Where the current process is not one of multiprocessing's, it is a child of billiard, which uses its finalizers.
    if process is not None and util is not None and (
        process.parent_process() is not None or not isinstance(process.current_process(), process.BaseProcess)
    ):  # fmt: skip
        util.Finalize(None, close, exitpriority=0)
    # The children of celery's prefork pool end without finalizers. Other processes do not send this signal.
    signals = sys.modules.get("celery.signals")
    if signals is not None:
        signals.worker_process_shutdown.connect(lambda **_: close(), weak=False, dispatch_uid="zmon")
