"""The engine: one thread and one ZeroMQ context for all publishers of a process, supervised.

Callers never wait for it and share no lock with it. It starts with the first batch, not before, because a server may
fork in between, and ends with the last publisher.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable

import zmq

from zmon._transport import headroom, threads, workers
from zmon._transport.delivery import DONE, MORE
from zmon._transport.link import Socket
from zmon._transport.notices import RateLimit, say
from zmon._transport.stream import Stream
from zmon._transport.wakeup import Wakeup
from zmon.backoff import Backoff

BUSY_POLL = 0.2  # seconds between looks at the queues while batches arrive: small batches gather meanwhile
RUSH_POLL = 0.02  # the same while a ring holds more than MUCH
MUCH = 2**20  # bytes
BUSY_FOR = 0.5  # seconds without a new batch, after which the thread sleeps until publish() wakes it
SLEEP = 0.25  # seconds at most, because a hello or a ping may be due
RESTART_AFTER, RESTART_MAX = 0.1, 10.0  # seconds between the end of the loop by an error and its next start
START_MAX = 1.0  # seconds at most between two tries to start a thread; a call must come for each
EXIT = 2.0  # seconds for all publishers together when the process ends
GOODBYE = 1.25  # seconds beyond a deadline in which streams end


class LackingError(Exception):
    """What the process lacks for the engine's work."""


class Engine:
    """Serves streams in one thread.

    Attributes
    ----------
    failed : str
        Why the thread does not work at the moment; empty if it does, or is not needed.
    awake : bool
        Whether the thread will look at its streams by itself in a moment. If not, `notify` it.
    """

    def __init__(self) -> None:
        self._streams: dict[int, Stream] = {}
        self._abandoned: list[list[Socket]] = []  # of parent processes
        self._begin()

    def _begin(self) -> None:
        """Set the state of a process in which no thread runs."""
        self.failed = ""
        self._only = threads.lock()  # held by the thread that serves; callers never take it
        self._running = self.awake = self._napping = False
        self._thread = 0
        self._wakeup: Wakeup | None = None
        self._start_at = 0.0
        self._starting = Backoff(RESTART_AFTER, START_MAX)
        self._notices = RateLimit()
        self._hooked = False

    # --- for callers -------------------------------------------------------------------------------------------------

    def register(self, stream: Stream) -> None:
        """Serve a stream from its first snapshot on, until it has ended."""
        topic = stream.target.topic
        others = [other for other in list(self._streams.values()) if other.target.topic == topic]
        self._streams[id(stream)] = stream
        if any(other.stop_at is None for other in others) and self._notices.allows(f"twice {topic}"):
            say("zmon: another publisher of model %r, version %r, agent %r lives in this process; "
                "construct one and use it everywhere, or close the other",
                topic.model, topic.version, topic.agent_id)  # fmt: skip

    def notify(self, hurry: bool = False) -> None:
        """Wake the thread if it sleeps, with `hurry` also from a nap; start it if it does not run."""
        if not self._running:
            self._start()
        elif not self.awake or (hurry and self._napping):
            self._wake()

    def interrupt(self) -> None:
        """Let the thread look at its streams now, even if it naps."""
        if not self._running:
            self._start()
        else:
            self._wake()

    def _wake(self) -> None:
        self.awake, self._napping = True, False
        if self._wakeup is not None:
            self._wakeup.wake()

    def retire(self, stream: Stream, timeout: float) -> None:
        """Let a stream deliver what it holds for at most `timeout` seconds, and end."""
        stream.retire(timeout)
        if stream.active:
            self.interrupt()
        else:
            self._forget(stream)

    def end(self, stream: Stream, timeout: float) -> None:
        """Retire a stream, and wait until it has ended."""
        self.retire(stream, timeout)
        if not self.wait(lambda: stream.ended, timeout + GOODBYE) and self.failed:
            self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        stream.ended = True
        self._streams.pop(id(stream), None)

    @property
    def is_current(self) -> bool:
        """Whether the caller is the engine's thread, as a finalizer may be: it must not wait for itself."""
        return self._running and threads.ident() == self._thread

    def close(self, timeout: float = EXIT) -> None:
        """End all streams within one deadline. When the process, or a worker process, ends."""
        for stream in list(self._streams.values()):
            self.retire(stream, timeout)
        self.wait(lambda: not self._streams, timeout + GOODBYE)

    def wait(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until the condition holds, looking often at first; return whether it does."""
        deadline, poll = time.monotonic() + timeout, Backoff(0.0005, 0.01)
        self.interrupt()
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0 or self.is_current or not self._serving:
                return condition()
            if not self._running:  # it ended, or a start was interrupted
                self._start()
            time.sleep(min(left, poll.next()))  # where greenlets are, others run meanwhile
        return True

    @property
    def _serving(self) -> bool:
        """Whether the thread runs or is about to; it does not where no thread can be started."""
        return self._running or not self.failed

    def _start(self) -> None:
        now = time.monotonic()
        if now < self._start_at or not self._has_work():
            return
        self._start_at = now + self._starting.next()
        self._hook()
        try:
            threads.start(self._run, "zmon-publisher")
        except RuntimeError as error:  # no more threads, or the interpreter is ending
            self.failed = f"no thread can be started: {error}"
            if self._notices.allows("start"):
                say("zmon: nothing is sent: %s; rows are kept, and it tries again", self.failed)

    def _has_work(self) -> bool:
        return any(stream.active for stream in list(self._streams.values()))

    # --- processes ---------------------------------------------------------------------------------------------------

    def _hook(self) -> None:
        """Deliver what is left also when a worker process ends, which does not run atexit hooks."""
        if self._hooked:
            return
        self._hooked = True
        workers.at_end(self.close)
        uwsgi = sys.modules.get("uwsgi")
        options = getattr(uwsgi, "opt", {})
        off = options.get("enable-threads") in (None, False, b"false", b"0") and not options.get("threads")
        if uwsgi is not None and off:
            say("zmon: uWSGI runs without --enable-threads, so nothing is sent; add enable-threads = true")

    def after_fork(self) -> None:
        """Start afresh in a forked child, where no thread serves and the parent's sockets must not be touched."""
        if self._wakeup is not None:
            self._wakeup.close()
        self._begin()
        for key, stream in list(self._streams.items()):
            if stream.stop_at is not None:
                del self._streams[key]
            self._abandoned.append(stream.renew())

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        if not self._only.acquire(timeout=EXIT):  # two callers started a thread at once, or the last one still ends
            return
        try:
            self._thread = threads.ident()
            restart = Backoff(RESTART_AFTER, RESTART_MAX)
            while self._has_work():
                self._running = True
                began = time.monotonic()
                try:
                    self._serve()
                except LackingError as error:
                    self.failed = str(error)
                    if self._notices.allows("lacking"):
                        say("zmon: nothing is sent: %s; rows are kept, and it tries again", error)
                except BaseException as error:  # noqa: BLE001 - whatever ended the loop, it starts again
                    self.failed = f"the publisher's thread failed: {type(error).__name__}: {error}"
                    if self._notices.allows("failed"):
                        say("zmon: the publisher's thread failed, and starts again", trace=True)
                else:
                    self._running = self.awake = (
                        False  # then look once more: a caller that saw it running has put its batch before
                    )
                    continue
                if time.monotonic() - began > RESTART_MAX:
                    restart.reset()
                threads.sleep(restart.next())
                self._end_overdue()
        finally:
            self._running = self.awake = False
            self._starting.reset()
            self._start_at = 0.0
            self._only.release()

    def _serve(self) -> None:
        lacking = headroom.lacking(headroom.CONTEXT, headroom.CONTEXT_THREADS)
        if lacking:
            raise LackingError(lacking)
        if self._wakeup is None:
            self._wakeup = Wakeup()
        context: zmq.Context[Socket] = zmq.Context()
        try:
            context.set(zmq.MAX_SOCKETS, 65535)
            self.failed = ""
            self._loop(context, self._wakeup)
        finally:
            for stream in list(self._streams.values()):
                stream.close()
            context.destroy(0)

    def _loop(self, context: zmq.Context[Socket], wakeup: Wakeup) -> None:
        poller, nap = zmq.Poller(), zmq.Poller()
        poller.register(wakeup.fileno(), zmq.POLLIN)
        nap.register(wakeup.fileno(), zmq.POLLIN)
        busy_at, state = time.monotonic(), DONE
        while self._has_work():
            streams = [stream for stream in list(self._streams.values()) if stream.active]
            wait = 0.0 if state == MORE else RUSH_POLL
            if state == DONE and not any(stream.urgent for stream in streams):
                if time.monotonic() - busy_at >= BUSY_FOR:
                    # Before the last look: callers first append, and then see whether the thread is awake.
                    self.awake = False
                    wait = 0.0 if any(stream.waiting or stream.urgent for stream in streams) else SLEEP
                elif not any(stream.is_greeting for stream in streams):
                    # What collectors say does not end this nap: the model has a better use for the interpreter.
                    much = any(stream.connected and stream.nbytes >= MUCH for stream in streams)
                    self._napping = True
                    nap.poll(int(1000 * (RUSH_POLL if much else BUSY_POLL)))
                    self._napping = False
                    wait = 0.0
            ready = {socket for socket, _ in poller.poll(int(wait * 1000))}
            self.awake = True
            if wakeup.fileno() in ready:
                wakeup.clear()
            now = time.monotonic()
            state = DONE
            for stream in streams:
                busy_at = now if stream.waiting else busy_at
                try:
                    stream.open(context, poller, now)
                    state = max(state, stream.step(ready, now))
                except Exception as error:  # noqa: BLE001 - it costs this stream a pause, and the others nothing
                    stream.fail(error, now)
                if stream.ended:
                    self._forget(stream)
            busy_at = now if state == MORE else busy_at

    def _end_overdue(self) -> None:
        """End streams whose time is over although the loop does not run."""
        now = time.monotonic()
        for stream in list(self._streams.values()):
            if stream.stop_at is not None and now >= stream.stop_at:
                self._forget(stream)


ENGINE = Engine()
atexit.register(ENGINE.close)
os.register_at_fork(after_in_child=ENGINE.after_fork)
