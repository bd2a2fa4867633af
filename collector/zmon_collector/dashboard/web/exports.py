"""Points as JSON or CSV, written in pieces: a response holds arrays and one piece, however much it is."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import numpy as np
from starlette.types import Receive, Scope, Send

from zmon_collector.dashboard.timeseries import TimeSeries

PIECE = 2000  # points that are written at a time
FORMULA = tuple("=+-@＝＋－＠\t\r\n")  # a spreadsheet computes a cell that begins with one of these


def json_pieces(series: Sequence[TimeSeries]) -> Iterator[bytes]:
    """Yield the series as one JSON object."""
    yield b'{"series":['
    for number, ts in enumerate(series):
        yield (b"," if number else b"") + b'{"names":' + json.dumps(ts.names, separators=(",", ":")).encode()
        yield b',"times":['
        yield from _numbers(ts.times)
        yield b'],"values":['
        yield from _numbers(ts.values)
        yield b"]}"
    yield b"]}"


def _numbers(values: np.ndarray[Any, Any]) -> Iterator[bytes]:
    for start in range(0, len(values), PIECE):
        piece = json.dumps(values[start : start + PIECE].tolist(), separators=(",", ":"), allow_nan=False)
        yield (b"," if start else b"") + piece[1:-1].encode()


def csv_pieces(series: Sequence[TimeSeries]) -> Iterator[bytes]:
    """Yield one point per line, with a column for each name that occurs."""
    columns = list(dict.fromkeys(name for ts in series for name in ts.names))
    yield _lines([["time", "timestamp", *columns, "value"]])
    for ts in series:
        names = [_cell(ts.get(name)) for name in columns]
        for start in range(0, len(ts.times), PIECE):
            part = slice(start, start + PIECE)
            points = zip(ts.times[part].tolist(), ts.values[part].tolist(), strict=True)
            yield _lines(
                [[datetime.fromtimestamp(time, UTC).isoformat(), time, *names, value] for time, value in points]
            )


def _lines(rows: Sequence[Sequence[Any]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text


class Export:
    """A response in pieces, each made when the last one was sent, until its peer goes. An ASGI application.

    Parameters
    ----------
    pieces : iterator of bytes
        Made in worker threads.
    headers : dict of str to str
    place : AsyncExitStack
        Closed once the response has ended.
    """

    def __init__(self, pieces: Iterator[bytes], headers: dict[str, str], place: AsyncExitStack) -> None:
        self._pieces, self._place = pieces, place
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            while not gone.done() and (piece := await asyncio.to_thread(next, self._pieces, None)) is not None:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            await self._place.aclose()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
