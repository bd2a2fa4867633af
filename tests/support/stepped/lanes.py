"""Coroutines in the place of threads: each goes on when the test says so, and one that hangs is left standing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import greenlet


def hang() -> None:
    """Leave the calling coroutine standing here until it is resumed."""
    thread = greenlet.getcurrent()
    assert thread.parent is not None
    thread.parent.switch()


class Wakeup:
    """Stands for the event for which the collector's thread waits between its turns."""

    def wait(self, timeout: float | None = None) -> bool:
        hang()
        return True

    def set(self) -> None:
        pass

    clear = set


class Lane(Executor):
    """An executor whose threads are coroutines: `work` runs them until they end, or hang."""

    lanes: list[Lane]  # of the collector that runs; given to the class

    def __init__(self, workers: int, thread_name_prefix: str = "") -> None:
        self._workers = workers
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._hanging: list[greenlet.greenlet] = []
        self.lanes.append(self)

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._waiting.append((future, lambda: call(*arguments, **options)))
        return future

    def work(self) -> bool:
        """Run the next task that waits for a free thread; whether there was one."""
        if not self._waiting or len(self._hanging) >= self._workers:
            return False
        future, call = self._waiting.popleft()
        if future.set_running_or_notify_cancel():
            self._go_on(greenlet.greenlet(lambda: self._run(future, call)))
        return True

    def resume(self) -> None:
        """Let what hangs return after all."""
        hanging, self._hanging = self._hanging, []
        for thread in hanging:
            self._go_on(thread)

    def _go_on(self, thread: greenlet.greenlet) -> None:
        thread.switch()
        if not thread.dead:
            self._hanging.append(thread)

    @staticmethod
    def _run(future: Future[Any], call: Callable[[], Any]) -> None:
        try:
            result = call()
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass
