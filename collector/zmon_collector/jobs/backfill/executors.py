"""Run tasks on threads of this process or on a Dask cluster, a bounded number at a time."""

from __future__ import annotations

import importlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager
from typing import Any, NamedTuple

from zmon.errors import ConfigurationError, MissingExtraError, ZmonError

CONNECT = 10.0  # seconds that a scheduler has to answer
POLL = 1.0  # seconds between checks that the scheduler is still there
PER_WORKER = 2  # tasks per thread: one runs, one waits


class BackfillStopped(ZmonError):  # noqa: N818 - not an error of the data: what is written is right
    """The run ended early, through no fault of the data; the same command resumes it."""


class WorkerPool(NamedTuple):
    """Executor, the number of tasks it runs at once, and a check that it is still there."""

    executor: Executor
    threads: int
    alive: Callable[[], bool]

    def ordered(self, task: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Yield the task's result for each call, in order, while a bounded number of calls runs."""
        waiting: deque[Future[Any]] = deque()
        try:
            for call in calls:
                if not self.alive():
                    raise _gone()
                waiting.append(self.executor.submit(task, *call))
                if len(waiting) >= PER_WORKER * self.threads + 1:
                    yield self._outcome(waiting.popleft())
            while waiting:
                yield self._outcome(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()

    def _outcome(self, future: Future[Any]) -> Any:
        while True:
            try:
                return future.result(POLL)
            except NotYet:
                if future.done():  # raised by the task itself
                    raise
                if not self.alive():
                    raise _gone() from None
            except CancelledError:
                raise _gone() from None


def _gone() -> BackfillStopped:
    return BackfillStopped("the scheduler has gone; restart it, then rerun the same command to resume")


@contextmanager
def open_pool(where: str, threads: int | None) -> Iterator[WorkerPool]:
    """Open what ``--executor`` names: ``threads``, or ``dask://host:port`` of a scheduler."""
    if where == "threads":
        count = threads or os.cpu_count() or 1
        threadpool = ThreadPoolExecutor(count, thread_name_prefix="zmon-backfill")
        try:
            yield WorkerPool(threadpool, count, lambda: True)
        finally:
            threadpool.shutdown(wait=True, cancel_futures=True)
        return
    if not where.startswith("dask://"):
        raise ConfigurationError(f"--executor {where!r}: give threads, or dask://host:port of a scheduler")
    with _dask(where) as pool:
        yield pool


@contextmanager
def _dask(where: str) -> Iterator[WorkerPool]:
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError:
        raise MissingExtraError("dask.distributed", "dask") from None
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # this command reports the same failures once
    address = "tcp://" + where.removeprefix("dask://")
    try:
        client = distributed.Client(address, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise BackfillStopped(f"--executor {where}: no scheduler answers within {CONNECT:g} s: {error}; start one with "
                      "`dask scheduler`") from None  # fmt: skip
    try:
        threads = sum(client.nthreads().values())
        if not threads:
            raise BackfillStopped(f"--executor {where}: the scheduler has no workers; start them with `dask worker`")
        yield WorkerPool(client.get_executor(pure=False), threads, lambda: client.status == "running")
    except distributed.KilledWorker as error:
        raise BackfillStopped(f"workers died repeatedly, perhaps for lack of memory: {error}") from None
    except ModuleNotFoundError as error:
        raise BackfillStopped(
            f'a worker lacks a module: {error}; install "zmon-agent[files,dask]" of this version on all workers'
        ) from None
    finally:
        client.close(timeout=POLL)
