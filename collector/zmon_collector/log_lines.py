"""The collector's log: bounded in lines whatever happens, and one line an event whatever names it quotes.

Most places in the code log once for each model, agent or key by themselves. These bounds hold for all places together,
those of libraries included.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable

PERIOD = 60.0  # seconds
LINES_OF_A_PLACE = 30  # that one line of code logs in a period
LINES = 300  # of all places in a period; errors have as many of their own
TRACE = 10  # a stack trace counts as so many lines
LONGEST = 4000  # characters of a message

Place = tuple[str, int]  # file and line
SERVICE, COMMAND = "%(asctime)s %(levelname)s %(name)s: %(message)s", "%(message)s"  # forms of a line


def begin(level: int, form: str) -> None:
    """Log to standard error from now on, in this form, unless somebody else has set up the log."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.StreamHandler())
        root.handlers[0].addFilter(LineLimit())
    for handler in root.handlers:
        if any(isinstance(each, LineLimit) for each in handler.filters):
            handler.setFormatter(SafeFormatter(form))
            root.setLevel(level)


class SafeFormatter(logging.Formatter):
    """Formats a record so that nothing in its message or stack trace begins another line or controls a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        cut = f"{message[:LONGEST]}… ({len(message):,} characters)" if len(message) > LONGEST else message
        safe = logging.makeLogRecord({**record.__dict__, "msg": escaped(cut), "args": (), "exc_text": None})
        return super().format(safe)

    def formatException(self, ei: object) -> str:  # noqa: N802 - logging's name
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]
        return "\n".join(f"    {escaped(line[:LONGEST])}" for line in lines)


def escaped(text: str) -> str:
    r"""Return a string with what is not printable as Python writes it.

    >>> escaped("a\n\x1b[2J\u202eb")
    'a\\n\\x1b[2J\\u202eb'
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class LineLimit(logging.Filter):
    """Lets a bounded number of lines pass in each period. The next line of a place says how many it has left out."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._lock = threading.Lock()
        self._since = now()
        self._lines: Counter[Place] = Counter()  # of this period
        self._total: Counter[bool] = Counter()  # by whether they are errors
        self._left_out: Counter[Place] = Counter()  # since the last line of the place

    def filter(self, record: logging.LogRecord) -> bool:
        place, error = (record.pathname, record.lineno), record.levelno >= logging.ERROR
        cost = TRACE if record.exc_info else 1
        with self._lock:
            if self._now() - self._since >= PERIOD:
                self._since = self._now()
                self._lines.clear()
                self._total.clear()
            if self._lines[place] + cost > LINES_OF_A_PLACE or self._total[error] + cost > LINES:
                self._left_out[place] += 1
                return False
            self._lines[place] += cost
            self._total[error] += cost
            left_out = self._left_out.pop(place, 0)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out:,} lines like this were left out)", ()
        return True
