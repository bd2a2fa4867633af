"""The publisher: a service constructs it once and calls it with every batch. It never raises and never blocks.

A call copies its arguments and appends them to a queue, without any lock; the engine does everything else.
"""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from time import time_ns
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, overload

from zmon._capture.assembler import Assembler
from zmon._capture.interrupts import is_asynchronous
from zmon._capture.snapshot import take
from zmon._transport import keys, settings, threads
from zmon._transport.delivery import Target
from zmon._transport.engine import ENGINE
from zmon._transport.ledger import Stats
from zmon._transport.stream import Stream
from zmon._watch import call_context, captured
from zmon._wire.frames import Topic
from zmon.batch import TASKS
from zmon.errors import ConfigurationError
from zmon.names import reason_word

CLOSE = 2.0  # seconds for the rows that are left
PAUSE = 1e-4  # seconds in which the engine leaves the interpreter to the model while it converts

Function = TypeVar("Function", bound=Callable[..., Any])


class Publisher:
    """Publisher of the batches that a model serves: copies each, and sends it to the collectors in the background.

    Only the constructor raises. All other methods count errors in `stats`, log them, and return. docs/publisher.md
    lists forms, limits and reasons.

    Parameters
    ----------
    model : str
        The logical model; its replicas share it.
    classes : sequence of str or int, optional
        Class names in the order of the columns, or their count (then ``class_0 …``). `labels` and `predictions` are
        matched by name first, so names may be numbers, such as a scikit-learn estimator's ``classes_``. Default: the
        names of the columns of the first probabilities, or ``class_0 …`` if they have none.
    collector : str or sequence of str, optional
        Data endpoints, ``tcp://HOST:PORT`` or ``ipc://PATH``. Default: ``ZMON_COLLECTOR``, then
        ``tcp://127.0.0.1:5757``.
    control : str or sequence of str, optional
        Control endpoints. Default: port + 1, or ``PATH.ctl``.
    agent_id : str, optional
        Name of this replica. Default: ``ZMON_AGENT_ID``, then the host name.
    version : str, optional
        Model version, part of the identity of every series.
    features : sequence of str, optional
        Names of the input columns. Default: those of the frame, else ``feat_0 …``.
    include, exclude : sequence of str, optional
        Globs over feature names that select which features are captured; ``[[]`` stands for a bracket.
    threshold : float
        For binary models: class 1 is predicted if ``p[1] > threshold``.
    task : str
        ``"classification"``, ``"regression"``, or ``"multilabel"`` where every class is predicted by itself.
    tags : mapping of str to str, optional
        Free tags of this publisher, at most 64.
    sample_rate : float
        Share of rows to capture, in (0, 1].
    buffer_bytes : int
        Upper bound for the memory that rows hold, whether they are converted or not; the oldest are dropped first.
    secret_key : str, bytes or path, optional
        CURVE: this publisher's secret key as 40 characters of z85, or better the path of the file written by
        `zmon keygen`. Default: the file named by ``ZMON_SECRET_KEY_FILE``, else no CURVE.
    server_key : str, bytes or path, optional
        CURVE: the collectors' public key, or the path of a file that holds it. Default: the file named by
        ``ZMON_SERVER_KEY_FILE``.
    kinds : mapping of str to str, optional
        Kinds of features by name: ``"numeric"``, ``"categorical"``, ``"boolean"``; ``"id"`` for columns that are only
        counted; ``"text"`` and ``"vector"`` (all of one width). The kinds of other features are inferred once, from
        their first values.

    Raises
    ------
    ConfigurationError
        If an argument is wrong; the message names the argument, what it got, and what it accepts.

    Examples
    --------
    >>> import numpy as np
    >>> with Publisher("fraud", classes=["ok", "fraud"], collector="tcp://127.0.0.1:59999") as publisher:
    ...     publisher.publish(np.array([[0.9, 0.1], [0.2, 0.8]]))
    ...     publisher.stats.published, publisher.stats.connected
    (2, False)
    """

    def __init__(
        self,
        model: str,
        classes: Sequence[object] | int | None = None,
        collector: str | Sequence[str] | None = None,
        control: str | Sequence[str] | None = None,
        *,
        agent_id: str | None = None,
        version: str | None = None,
        features: Sequence[str] | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        threshold: float = 0.5,
        task: str = "classification",
        tags: Mapping[str, str] | None = None,
        sample_rate: float = 1.0,
        buffer_bytes: int = 32 * 2**20,
        secret_key: keys.Given | None = None,
        server_key: keys.Given | None = None,
        kinds: Mapping[str, str] | None = None,
    ) -> None:
        if task not in TASKS:
            raise ConfigurationError(f"task is {task!r}; it must be one of {', '.join(map(repr, TASKS))}")
        if not 0.0 < settings.number("sample_rate", sample_rate) <= 1.0:
            raise ConfigurationError(f"sample_rate is {sample_rate!r}; it must lie in (0, 1]")
        if not 0.0 <= settings.number("threshold", threshold) <= 1.0:
            raise ConfigurationError(f"threshold is {threshold!r}; it must lie in [0, 1]")
        if not isinstance(buffer_bytes, int) or buffer_bytes < 64 * 2**10:
            raise ConfigurationError(f"buffer_bytes is {buffer_bytes!r}; it must be an int of at least 65536")
        if task == "regression" and classes is not None:
            raise ConfigurationError("a regression has no classes; leave classes out")
        topic = Topic(
            settings.name("model", model),
            "" if version is None else settings.name("version", version),
            settings.agent_id(agent_id),
        )
        target = Target(settings.endpoints(collector, control), keys.from_arguments(secret_key, server_key), topic)
        self._assembler = Assembler(
            task=task,
            classes=classes,
            features=settings.names("features", features),
            include=settings.names("include", include),
            exclude=settings.names("exclude", exclude),
            threshold=threshold,
            tags=settings.tags(tags),
            sample_rate=sample_rate,
            kinds=kinds,
            model=topic.model,
            pause=partial(threads.sleep, PAUSE),
        )
        self._stream = Stream(target, self._assembler, buffer_bytes)
        self._enabled = settings.enabled()
        self._closed = False
        if self._enabled:
            ENGINE.register(self._stream)
            # The engine holds the stream and not this publisher, so that its last reference ends it.
            weakref.finalize(self, ENGINE.retire, self._stream, CLOSE).atexit = False

    # --- for services ------------------------------------------------------------------------------------------------

    def publish(
        self,
        probabilities: Any = None,
        inputs: Any = None,
        labels: Any = None,
        *,
        predictions: Any = None,
        ids: Any = None,
        timestamps: Any = None,
        segments: Any = None,
    ) -> None:
        """Publish a snapshot of one batch. Return at once, never raise.

        Parameters
        ----------
        probabilities : array_like
            (n, n_classes), or (n,) for the probability of class 1 of a binary model; in [0, 1]. A frame, or a dict of
            columns, is aligned with the classes by name; ``{class: p}`` is one row.
        inputs : array_like or frame, optional
            n rows of features, as an array, a pandas, polars or pyarrow frame, a tensor, a sparse matrix, a dict of
            columns, a list of dicts, or a dict for one row: numbers, booleans and categories; values may be missing.
        labels : array_like, optional
            Ground truth: (n,) names or indices, None or NaN where unknown; or (n, n_classes) one-hot. Multilabel:
            (n, n_classes) of 0 and 1, or a list of names for each row.
        predictions : array_like, optional
            (n,) predicted classes of a model without probabilities, or the values of a regression.
        ids : array_like, optional
            (n,) integers, strings of at most 256 bytes, or UUIDs that identify the rows; None for a row without one.
        timestamps : optional
            One time or one per row: epoch seconds, datetime or datetime64. Times without a zone are UTC. Default: now.
        segments : mapping of str to array_like, optional
            Columns by whose values series are split, for instance ``{"country": [...]}``; at most 8.
        """
        self._put("batch", (probabilities, inputs, labels, predictions, ids, timestamps, segments))

    def publish_labels(self, ids: Any, labels: Any, timestamps: Any = None) -> None:
        """Publish ground truth that arrives after its predictions. Return at once, never raise.

        Any process may do so that uses the same model and version. Its classes are matched by name with those of the
        predictions, in any order.

        Parameters
        ----------
        ids : array_like
            (n,) integers or strings: the ids of the predictions as they were published. 7 and "7" are the same id.
        labels : array_like
            (n,) indices or names, or one-hot; for a regression the targets.
        timestamps : optional
            When the truth became known, as in `publish`. Default: now.
        """
        self._put("labels", (None, None, labels, None, ids, timestamps, None))

    @overload
    def capture(self, function: Function) -> Function: ...

    @overload
    def capture(self, *, output: str | None = None, inputs: bool = True) -> Callable[[Function], Function]: ...

    def capture(
        self, function: Callable[..., Any] | None = None, *, output: str | None = None, inputs: bool = True
    ) -> Callable[..., Any]:
        """Decorate a function, plain or async, so that its results are published; see `zmon.watch`.

        Parameters
        ----------
        output : {"proba", "logits", "label", "value"}, optional
            What the function returns. Default: probabilities; for a regression, values.
        inputs : bool
            Publish its first argument as inputs, if that has columns.

        Examples
        --------
        >>> import numpy as np
        >>> with Publisher("coin", classes=["tails", "heads"], collector="tcp://127.0.0.1:59999") as publisher:
        ...     @publisher.capture(output="proba")
        ...     def score(rows):
        ...         return np.full((len(rows), 2), 0.5)
        ...     score([[1.0], [2.0]]).shape, publisher.stats.published
        ((2, 2), 2)
        """
        if function is None:
            return lambda decorated: captured(decorated, self, output, inputs)
        return captured(function, self, output, inputs)

    def context(
        self, *, ids: Any = None, timestamps: Any = None, labels: Any = None, segments: Any = None
    ) -> AbstractContextManager[None]:
        """Until the block ends, make watched calls in this thread or task publish these arguments as well.

        The arguments are those of `publish`; they belong to the rows of one call. `publish` itself ignores them.

        Examples
        --------
        ::

            with publisher.context(ids=[row["order"] for row in rows]):
                model.predict_proba(frame)
        """
        arguments = {"ids": ids, "timestamps": timestamps, "labels": labels, "segments": segments}
        return call_context.context(self, arguments)

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything published so far is acknowledged.

        Parameters
        ----------
        timeout : float
            Seconds to wait at most.

        Returns
        -------
        bool
            True once every collector that has subscribed to this model has acknowledged everything, including one
            that is disconnected at the moment; also if nothing was published. False if that does not happen in time,
            if no collector has subscribed, or if rows published before this call were dropped. A loss is not reported
            again by calls that begin after a call has returned False for it; running out of time does not count.
        """
        timeout = _seconds(timeout, 5.0)
        if not self._stream.active or not self._enabled:
            return True
        if self._stream.ended:
            return not self.stats.dropped
        mark = self._stream.mark(time.monotonic() + timeout)
        if mark is None:
            return False
        ENGINE.wait(lambda: self._stream.is_acknowledged(mark) or self._stream.ended, timeout)
        return self._stream.is_acknowledged(mark) and not self._stream.has_lost(mark)

    @property
    def stats(self) -> Stats:
        """A frozen snapshot of the counters, in rows."""
        return self._stream.stats(ENGINE.failed)

    def close(self, timeout: float = CLOSE) -> None:
        """Deliver the remaining rows for at most `timeout` seconds and end. Safe to call twice.

        It waits for a collector that has taken this model, from any publisher of this process, even while that one is
        disconnected; where none was ever reached it returns within half a second. Rows that are left are counted as
        dropped: ``"closed"``.
        """
        if self._closed:
            return
        self._closed = True
        if self._enabled:
            ENGINE.end(self._stream, _seconds(timeout, CLOSE))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Publisher belongs to its process and cannot be pickled; construct one in each process")

    # --- for adapters: zmon.watch, zmon.keras, zmon.mlwatcher --------------------------------------------------------

    @property
    def task(self) -> str:
        """``"classification"``, ``"regression"`` or ``"multilabel"``."""
        return self._assembler.task

    @property
    def enabled(self) -> bool:
        """Whether batches are published at all: False if ``ZMON_ENABLED`` turned this process's publishers off."""
        return self._enabled

    def reject(self, reason: str, detail: str, rows: int = 1) -> None:
        """Count rows that an adapter could not turn into a batch.

        Parameters
        ----------
        reason : str
            A short stable word, lower_snake; a key of ``stats.rejected``. Anything else is counted as ``"other"``.
        detail : str
            Explanation for the log.
        rows : int
            Number of rows, at least 1.
        """
        if not self._enabled:
            return
        # Collectors of release 0.1 refuse messages whose tally has other names: one bad reason would stop the stream.
        self._stream.refuse(reason_word(reason), detail, max(1, int(rows)))
        ENGINE.notify()

    def class_names(self, default: Sequence[object] = ()) -> list[object]:
        """Return the classes as they were given; if there are none, the classes become `default`."""
        return self._assembler.class_names(default)

    # --- internals ---------------------------------------------------------------------------------------------------

    def _put(self, kind: str, arguments: tuple[Any, ...]) -> None:
        """Queue a copy of a call's arguments."""
        if not self._enabled:
            return
        try:
            assembler = self._assembler
            snapshot = take(kind, time_ns(), arguments, assembler.selection, assembler.vectors)
            if self._closed:
                self._stream.after_close += snapshot.rows
            elif snapshot.rows:
                hurry = self._stream.intake.put(snapshot)
                if hurry or not ENGINE.awake:
                    ENGINE.notify(hurry)
        except Exception as error:
            if is_asynchronous(error):
                raise
            self.reject("internal", f"{type(error).__name__}: {error}")


def _seconds(timeout: Any, default: float) -> float:
    """Return a number of seconds to wait, at most a day; `default` if `timeout` is not a number."""
    try:
        seconds = float(timeout)
    except (OverflowError, TypeError, ValueError) as error:
        if is_asynchronous(error):
            raise
        return 86400.0 if isinstance(error, OverflowError) else default  # an integer may lie beyond all floats
    return default if math.isnan(seconds) else min(max(seconds, 0.0), 86400.0)
