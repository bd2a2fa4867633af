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

from zmon_collector.dashboard.web.query_params import QueryParams

log = logging.getLogger("zmon.collector")

SHARE = 0.1  # of a core for rendering
LEAST_PAUSE = 0.1  # seconds between two rounds of rendering
PING_EVERY = 10.0  # seconds; keeps proxies from closing the connection, and detects viewers that have gone
STUCK = 30.0  # seconds without reading until a viewer is disconnected
LINGER = 60.0  # seconds that a rendered view is kept without viewers
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
        self.body = b""
        self.event = b""
        self.stale = True
        self.viewers = 0
        self.used = time.monotonic()
        self.changed = asyncio.Event()

    def publish(self, body: bytes, number: int) -> None:
        """Publish a rendering, unless it equals the one before."""
        self.stale = False
        if body == self.body:
            return
        self.body, self.number = body, number
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
        self._topics: dict[QueryParams, ViewTopic] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._number = int(time.time() * 1000)  # so that numbers also grow over restarts
        self.viewers = 0
        self.closed = asyncio.Event()

    @property
    def full(self) -> bool:
        return self.viewers >= self._most

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

    def count(self, topic: ViewTopic, change: int) -> None:
        """Count a viewer that has come (1) or gone (-1)."""
        topic.viewers += change
        self.viewers += change
        topic.used = time.monotonic()
        on_view = (topic.params for topic in self._topics.values() if topic.viewers and topic.params.until is None)
        self._watch(frozenset(params.model for params in on_view if params.model))

    def topic(self, params: QueryParams) -> ViewTopic:
        """Return the topic of a view, and have it rendered if it is out of date."""
        topic = self._topics.get(params)
        if topic is None:
            topic = self._topics[params] = ViewTopic(params)
        topic.used = time.monotonic()
        if topic.stale:
            self._wake.set()
        return topic

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            busy = 0.0
            for topic in list(self._topics.values()):
                if topic.viewers and topic.stale:
                    busy += await self._render_topic(topic)
                elif not topic.viewers and time.monotonic() - topic.used > LINGER:
                    del self._topics[topic.params]
            await asyncio.sleep(max(LEAST_PAUSE, busy * (1 / SHARE - 1)))

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
        """Return the newest rendering once."""
        topic = self.topic(params)
        if topic.stale or not topic.body:
            await self._render_topic(topic)
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
        self._broadcaster.topic(self._asked)  # has it rendered, now that it has a viewer
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
