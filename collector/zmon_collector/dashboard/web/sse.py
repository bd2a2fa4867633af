"""Server-sent events: a view is rendered and serialised once for all of its viewers.

Every event is a whole view under a number that only grows, so no viewer needs an earlier one: a slow viewer skips
events, and one that reconnects sends the last number it received. Nothing is queued: a viewer refers to its topic,
which holds one event.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from zmon_collector.dashboard.web.budget import Budget, BusyError
from zmon_collector.dashboard.web.query_params import QueryParams

log = logging.getLogger("zmon.collector")

SHARE = 0.1  # of a core for rendering
SAVED = 1.0  # seconds of a core that may be used at once when nothing was rendered for a while
LEAST_PAUSE = 0.1  # seconds between two rounds of rendering
ASKING = 16  # requests for a view that wait for its rendering
PATIENCE = 20.0  # seconds that they wait
PING_EVERY = 10.0  # seconds; keeps proxies from closing the connection, and detects viewers that have gone
STUCK = 30.0  # seconds without reading until a viewer is disconnected
KEPT, KEPT_BYTES = 64, 16 * 2**20  # rendered views that are kept without viewers; the last used are
VIEWED_BYTES = 64 * 2**20  # of views with viewers; beyond it there are no further views
HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
HEALTH = {"health", "overview", "alerts"}  # views that any health report may change

Render = Callable[[QueryParams], tuple[Any, float]]  # a view, and the seconds of a core it took elsewhere


def to_json(data: Any) -> bytes:
    """Serialise plain data."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False, default=float).encode()


class ViewTopic:
    """One view with its newest event. Viewers wait for the next one."""

    def __init__(self, params: QueryParams) -> None:
        self.params = params
        self.number = 0
        self.event = b""
        self.stale = True
        self.viewers = 0
        self.asking = 0  # requests that wait for the next rendering
        self.changed = asyncio.Event()
        self.rendered = asyncio.Event()

    @property
    def body(self) -> bytes:
        """The view itself."""
        return self.event.partition(b"data: ")[2][:-2]

    def publish(self, body: bytes, number: int) -> None:
        """Publish a rendering, unless it equals the one before."""
        rendered, self.rendered = self.rendered, asyncio.Event()
        rendered.set()
        if body == self.body:
            return
        self.number = number
        self.event = b"id: %d\nevent: view\ndata: %s\n\n" % (number, body)
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Broadcaster:
    """All topics, and the task that renders those that are out of date.

    Parameters
    ----------
    render : callable
        Returns a view as plain data, and the seconds of a core it took in other threads; runs in a worker thread.
    viewers : int
        Most viewers at a time.
    watch : callable
        Called with the models on view whenever they change.
    """

    def __init__(self, render: Render, viewers: int, watch: Callable[[frozenset[str]], None] = lambda _: None) -> None:
        self._render = render
        self._watch = watch
        self._most = viewers
        self._topics: dict[QueryParams, ViewTopic] = {}  # the last used at the end
        self._budget = Budget(SHARE, SAVED)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._number = int(time.time() * 1000)  # so that numbers also grow over restarts
        self.viewers = 0
        self.closed = asyncio.Event()

    def __len__(self) -> int:
        """Return the number of views that are kept."""
        return len(self._topics)

    def is_full(self, params: QueryParams) -> bool:
        """Return whether there is no place for one more viewer of a view."""
        if self.viewers >= self._most:
            return True
        topic = self._topics.get(params)
        viewed = sum(len(each.event) for each in self._topics.values() if each.viewers)
        return viewed > VIEWED_BYTES and not (topic and topic.viewers)

    def start(self) -> None:
        """Begin in the running loop, without what is left of an earlier one that ended by an error."""
        self._topics.clear()
        self._wake, self.closed, self.viewers = asyncio.Event(), asyncio.Event(), 0
        self._task = asyncio.create_task(self._work())

    def close(self) -> None:
        """Disconnect every viewer."""
        self.closed.set()
        if self._task is not None:
            self._task.cancel()

    def mark(self, model: str) -> None:
        """Mark the views of a model as out of date, or with "" those of the collector. Call it in the loop's thread."""
        for topic in self._topics.values():
            if topic.params.view in HEALTH or (model and topic.params.model == model):
                topic.stale = True
        self._wake.set()

    def wake(self) -> None:
        """Have views rendered that are out of date."""
        self._wake.set()

    def count(self, topic: ViewTopic, change: int) -> None:
        """Count a viewer that has come (1) or gone (-1)."""
        topic.viewers += change
        self.viewers += change
        self._forget()
        on_view = (topic.params for topic in self._topics.values() if topic.viewers and topic.params.until is None)
        self._watch(frozenset(params.model for params in on_view if params.model))

    def topic(self, params: QueryParams) -> ViewTopic:
        """Return the topic of a view."""
        topic = self._topics.pop(params, None) or ViewTopic(params)
        self._topics[params] = topic
        self._forget()
        return topic

    def _forget(self) -> None:
        """Forget the views without viewers that have not been used for longest, as far as they exceed their bounds."""
        unused = [each for each in self._topics.values() if not each.viewers and not each.asking]
        left = sum(len(each.event) for each in unused)
        for number, topic in enumerate(unused[:-1]):
            if len(unused) - number <= KEPT and left <= KEPT_BYTES:
                return
            left -= len(topic.event)
            del self._topics[topic.params]

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for topic in list(self._topics.values()):
                if topic.stale and (topic.viewers or topic.asking):
                    await asyncio.sleep(self._budget.wait())
                    self._budget.spend(await self._render_topic(topic))
            self._forget()
            await asyncio.sleep(LEAST_PAUSE)

    async def _render_topic(self, topic: ViewTopic) -> float:
        started = time.thread_time()
        topic.stale = False

        def work() -> tuple[bytes, float]:
            begun = time.thread_time()
            view, elsewhere = self._render(topic.params)
            return to_json(view), time.thread_time() - begun + elsewhere

        try:
            body, busy = await asyncio.to_thread(work)
        except Exception as error:
            log.exception("the view %s cannot be rendered", topic.params.view, exc_info=error)
            body, busy = to_json({"view": topic.params.view, "error": f"{type(error).__name__}: {error}"[:500]}), 1.0
        self._number += 1
        topic.publish(body, self._number)
        return busy + time.thread_time() - started

    async def once(self, params: QueryParams) -> bytes:
        """Return the newest rendering once.

        Raises
        ------
        BusyError
            As many wait for renderings as may, or it takes too long.
        """
        topic = self.topic(params)
        if topic.stale or not topic.event:
            if sum(each.asking for each in self._topics.values()) >= ASKING:
                raise BusyError
            topic.asking += 1
            self._wake.set()
            try:
                async with asyncio.timeout(PATIENCE):
                    await topic.rendered.wait()
            except TimeoutError:
                raise BusyError from None
            finally:
                topic.asking -= 1
        return topic.body


class EventStream:
    """The response to one viewer: events until either side ends it. An ASGI application."""

    def __init__(self, broadcaster: Broadcaster, params: QueryParams, seen: int | None) -> None:
        self._broadcaster, self._asked, self._seen = broadcaster, params, seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        topic = self._broadcaster.topic(self._asked)
        self._broadcaster.count(topic, 1)
        ends = [asyncio.create_task(_gone(receive)), asyncio.create_task(self._broadcaster.closed.wait())]
        try:
            await self._follow(topic, send, ends)
        except TimeoutError:
            log.info("disconnected a viewer that did not read for %g s", STUCK)
        finally:
            self._broadcaster.count(topic, -1)
            for end in ends:
                end.cancel()

    async def _follow(self, topic: ViewTopic, send: Send, ends: list[asyncio.Task[Any]]) -> None:
        await _send(send, b"retry: 1000\n\n")
        seen = self._seen
        self._broadcaster.wake()  # has it rendered, now that it has a viewer
        while not any(end.done() for end in ends):
            if topic.event and topic.number != seen:
                seen = topic.number
                await _send(send, topic.event)
                continue
            waiting = asyncio.create_task(topic.changed.wait())
            done, _ = await asyncio.wait([waiting, *ends], timeout=PING_EVERY, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if not done:
                await _send(send, b": here\n\n")
        await _send(send, b"", more=False)


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    async with asyncio.timeout(STUCK):
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _gone(receive: Receive) -> None:
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            return
