"""Where tasks run: on threads of this process, or on a Dask cluster. Both are executors; a few tasks are under way."""

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

CONNECT = 10.0  # seconds a scheduler has to answer
LOOK = 1.0  # seconds between looks at whether the scheduler is still there
PER_WORKER = 2  # tasks under way for each thread: one runs, one waits


class Stopped(ZmonError):  # noqa: N818 - it is no error: what is there is right, and the rest can follow
    """The run ends before all is done, through no fault of the data; the same command goes on where it ended."""


class Workers(NamedTuple):
    """An executor, how many tasks it runs at once, and whether it is still there."""

    executor: Executor
    threads: int
    alive: Callable[[], bool]

    def ordered(self, task: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """What the task gives for each call, in order; a bounded number of calls is under way."""
        waiting: deque[Future[Any]] = deque()
        try:
            for call in calls:
                waiting.append(self._submit(task, call))
                if len(waiting) >= PER_WORKER * self.threads + 1:
                    yield self._outcome(waiting.popleft())
            while waiting:
                yield self._outcome(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()

    def _submit(self, task: Callable[..., Any], call: tuple[Any, ...]) -> Future[Any]:
        if not self.alive():
            raise _gone()
        return self.executor.submit(task, *call)

    def _outcome(self, future: Future[Any]) -> Any:
        while True:
            try:
                return future.result(LOOK)
            except NotYet:
                if future.done():  # the task's own
                    raise
                if not self.alive():
                    raise _gone() from None
            except CancelledError:
                raise _gone() from None


def _gone() -> Stopped:
    return Stopped("the scheduler has gone; start it again, and give the same command again: it goes on from here")


@contextmanager
def workers(where: str, threads: int | None) -> Iterator[Workers]:
    """What ``--executor`` names: ``threads``, or ``dask://host:port``, a scheduler."""
    if where == "threads":
        count = threads or os.cpu_count() or 1
        pool = ThreadPoolExecutor(count, thread_name_prefix="zmon-backfill")
        try:
            yield Workers(pool, count, lambda: True)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return
    if not where.startswith("dask://"):
        raise ConfigurationError(f"--executor {where!r}: give threads, or dask://host:port of a scheduler")
    with _dask(where) as found:
        yield found


@contextmanager
def _dask(where: str) -> Iterator[Workers]:
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError:
        raise MissingExtraError("dask.distributed", "dask") from None
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what it complains of is said once, by us
    address = "tcp://" + where.removeprefix("dask://")
    try:
        client = distributed.Client(address, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise Stopped(f"--executor {where}: no scheduler answers within {CONNECT:g} s: {error}; start one with "
                      "`dask scheduler`") from None  # fmt: skip
    try:
        threads = sum(client.nthreads().values())
        if not threads:
            raise Stopped(f"--executor {where}: the scheduler has no workers; start some with `dask worker`")
        yield Workers(client.get_executor(pure=False), threads, lambda: client.status == "running")
    except distributed.KilledWorker as error:
        raise Stopped(f"workers have died again and again, perhaps for lack of memory: {error}") from None
    except ModuleNotFoundError as error:
        raise Stopped(
            f'a worker cannot do it: {error}; install "zmon-agent[files,dask]" of this version on all'
        ) from None
    finally:
        client.close(timeout=LOOK)
