"""The publisher: what a service constructs once and calls with every batch. It never raises, never blocks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, overload

import numpy as np

from zmon._capture.assembler import Assembler, Pieces
from zmon._transport import forks, keys, settings, threads
from zmon._transport.counters import Counters, Stats
from zmon._transport.ring import Ring
from zmon._transport.sender import Sender
from zmon._watch import call_context, captured
from zmon._wire.frames import STREAM_BYTES, Topic
from zmon.errors import ConfigurationError, Rejected

Function = TypeVar("Function", bound=Callable[..., Any])


class Publisher:
    """Copies each batch a model serves and publishes it to the collectors, in the background.

    Only this constructor raises. Everything else counts what goes wrong and returns.

    Parameters
    ----------
    model : str
        The logical model; its replicas share it.
    classes : sequence of str or int, optional
        Names in the columns' order, or their count (then ``class_0 …``). Names that are numbers, such as a
        scikit-learn estimator's ``classes_``, are matched by value in `labels`. By default inferred from the width of
        the first probabilities.
    collector : str or sequence of str, optional
        Data endpoints, ``tcp://HOST:PORT`` or ``ipc://PATH``. Default: ``ZMON_COLLECTOR``, then
        ``tcp://127.0.0.1:5757``.
    control : str or sequence of str, optional
        Control endpoints. Default: port + 1, or ``PATH.ctl``.
    agent_id : str, optional
        This replica. Default: ``ZMON_AGENT_ID``, then the host's name.
    version : str, optional
        Model version, part of the identity of every series.
    features : sequence of str, optional
        Names of the inputs' columns. Default: a frame's own, else ``feat_0 …``.
    include, exclude : sequence of str, optional
        Globs over feature names: which are captured at all.
    threshold : float
        Binary models: class 1 is predicted when ``p[1] > threshold``.
    task : str
        ``"classification"`` or ``"regression"``.
    tags : mapping of str to str, optional
        Free tags of this publisher.
    sample_rate : float
        Share of rows captured, in (0, 1].
    buffer_bytes : int
        Bound on what is held in memory; the oldest rows go first.
    secret_key : str, bytes or path, optional
        CURVE: this publisher's secret key, 40 characters of z85, or better the path of the file that `zmon keygen`
        wrote. Default: the file that ``ZMON_SECRET_KEY_FILE`` names, else no CURVE.
    server_key : str, bytes or path, optional
        CURVE: the collectors' public key, or the path of a file that holds it. Default: the file that
        ``ZMON_SERVER_KEY_FILE`` names.
    kinds : mapping of str to str, optional
        Kinds of features by name: ``"numeric"``, ``"categorical"``, ``"boolean"``; ``"text"`` and ``"vector"`` columns
        are not captured. What is not declared is inferred once, from the first values.

    Raises
    ------
    ConfigurationError
        When an argument is wrong; the text says which and why.

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
        if task not in ("classification", "regression"):
            raise ConfigurationError(f"task is {task!r}; this release knows 'classification' and 'regression'")
        if not 0.0 < sample_rate <= 1.0:
            raise ConfigurationError(f"sample_rate is {sample_rate!r}; it must lie in (0, 1]")
        if not 0.0 <= threshold <= 1.0:
            raise ConfigurationError(f"threshold is {threshold!r}; it must lie in [0, 1]")
        if not isinstance(buffer_bytes, int) or buffer_bytes < 64 * 2**10:
            raise ConfigurationError(f"buffer_bytes is {buffer_bytes!r}; it must be at least 65536")
        if task == "regression" and classes is not None:
            raise ConfigurationError("a regression has no classes; leave them out")
        self._topic = Topic(
            settings.name("model", model),
            "" if version is None else settings.name("version", version),
            settings.agent_id(agent_id),
        )
        self._endpoints = settings.endpoints(collector, control)
        self._keys = keys.given(secret_key, server_key)
        self._capture = Assembler(
            task=task,
            classes=classes,
            features=settings.texts("features", features),
            include=settings.texts("include", include),
            exclude=settings.texts("exclude", exclude),
            threshold=threshold,
            tags={settings.name("a tag", k): settings.name("a tag's value", v) for k, v in (tags or {}).items()},
            sample_rate=sample_rate,
            kinds=kinds,
            memory=buffer_bytes,  # what the ring once held may stay for later copies
        )
        self._buffer_bytes = buffer_bytes
        self._enabled = settings.enabled()
        self._closed = False
        self._abandoned: list[Sender] = []  # a forked child keeps the parent's, and never touches it
        self._reset()
        if self._enabled:
            forks.watch(self, self.close)

    def _reset(self) -> None:
        """A fresh stream with an empty ring: at the start, and in a forked child."""
        self._lock = threads.lock()
        self._stream = os.urandom(STREAM_BYTES)
        self._ring = Ring(self._buffer_bytes)
        self._label_rows = 0
        self._counters = Counters(self._topic.model)
        self._transport: Sender | None = None

    # --- what the service calls --------------------------------------------------------------------------------------

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
        """Take a snapshot of one batch. Returns at once, never raises.

        Parameters
        ----------
        probabilities : array_like
            (n, n_classes), or (n,) for the probability of class 1 of a binary model; in [0, 1].
        inputs : array_like or frame, optional
            n rows of features, as an array, a pandas, polars or pyarrow frame, a tensor or a list of dicts: numbers,
            truth values, categories, with missing values.
        labels : array_like, optional
            Ground truth: (n,) indices or names, None or NaN where unknown; or (n, n_classes) one-hot.
        predictions : array_like, optional
            (n,) predicted classes of a model that gives no probabilities; or the values of a regression.
        ids : array_like, optional
            (n,) integers or texts that name the rows.
        timestamps : optional
            One time or one per row: epoch seconds, datetime or datetime64; without a zone they are UTC. Default: now.
        segments : mapping of str to array_like, optional
            Columns by whose values series are given apart, for instance ``{"country": [...]}``; at most 8.
        """
        if not self._enabled:
            return
        try:
            if self._closed:
                self._counters.drop("closed", _rows(probabilities, predictions))
                return
            pieces, sampled_out = self._capture.pieces(
                probabilities, inputs, labels, predictions, ids, timestamps, time.time_ns(), segments
            )
            self._hold(pieces)
            if sampled_out:
                self._counters.sample_out(sampled_out)
        except Rejected as error:
            self._reject(error.reason, str(error), _rows(probabilities, predictions))
        except Exception as error:  # noqa: BLE001 - the model must not notice, whatever it was
            self._reject("internal", f"{type(error).__name__}: {error}", _rows(probabilities, predictions))

    def publish_labels(self, ids: Any, labels: Any, timestamps: Any = None) -> None:
        """Ground truth that comes later, from any process that names the same model, version and classes. Never raises.

        Parameters
        ----------
        ids : array_like
            (n,) integers or texts: those that the predictions were published with. 7 and "7" are the same id.
        labels : array_like
            (n,) indices or names, or one-hot; for a regression the targets.
        timestamps : optional
            When the truth was known, as in `publish`. Default: now.

        """
        if not self._enabled:
            return
        try:
            if self._closed:
                self._counters.drop("closed", _rows(ids))
                return
            pieces = self._capture.label_pieces(ids, labels, timestamps, time.time_ns())
            self._label_rows += self._hold(pieces)
        except Exception as error:  # noqa: BLE001 - nobody must notice, whatever it was
            self._reject(getattr(error, "reason", "internal"), f"{type(error).__name__}: {error}", _rows(ids, labels))

    @overload
    def capture(self, function: Function) -> Function: ...

    @overload
    def capture(self, *, output: str | None = None, inputs: bool = True) -> Callable[[Function], Function]: ...

    def capture(
        self, function: Callable[..., Any] | None = None, *, output: str | None = None, inputs: bool = True
    ) -> Callable[..., Any]:
        """Decorate a function, plain or async, so that what it returns is published; see `zmon.watch`.

        Parameters
        ----------
        output : {"proba", "logits", "label", "value"}, optional
            What the function returns. Default: probabilities; for a regression, values.
        inputs : bool
            Publish its first argument as inputs, where that has columns.

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
            return lambda each: captured(each, self, output, inputs)
        return captured(function, self, output, inputs)

    def context(
        self, *, ids: Any = None, timestamps: Any = None, labels: Any = None, segments: Any = None
    ) -> AbstractContextManager[None]:
        """Until the block ends, watched calls in this thread or task also publish what is given here.

        The arguments are those of `publish`; they belong to the rows of one call. `publish` itself takes no notice.

        Examples
        --------
        ::

            with publisher.context(ids=[row["order"] for row in rows]):
                model.predict_proba(frame)
        """
        given = {"ids": ids, "timestamps": timestamps, "labels": labels, "segments": segments}
        return call_context.context(self, given)

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything published so far is acknowledged.

        Parameters
        ----------
        timeout : float
            Seconds to wait at most.

        Returns
        -------
        bool
            True once every collector that subscribed to this model has acknowledged, also one that is away meanwhile;
            False when that did not happen in time, or none has subscribed. True where nothing was published.
        """
        if self._transport is None:
            return self._ring.issued == 0
        return self._transport.wait(self._ring.issued, timeout)

    @property
    def stats(self) -> Stats:
        """A frozen snapshot of the counters, in rows."""
        with self._lock:
            return self._counters.stats(
                published=self._ring.issued,
                labels=self._label_rows,
                delivered=self._ring.delivered,
                queued=self._ring.nbytes,
                overflowed=self._ring.dropped,
                connected=self._transport is not None and self._transport.connected,
            )

    def close(self, timeout: float = 2.0) -> None:
        """Deliver what is left for at most `timeout` seconds and end the background thread. Safe to call twice.

        With no collector there it returns within half a second.
        """
        if self._closed:
            return
        self._closed = True
        forks.unwatch(self, self.close)
        if self._transport is not None:
            self._transport.stop(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Publisher belongs to its process and is not pickled; construct one in each process")

    # --- inside ------------------------------------------------------------------------------------------------------

    def _hold(self, pieces: Pieces) -> int:
        """Into the ring, until every collector has them; how many rows that are."""
        rows = 0
        with self._lock:
            for layout, piece, nbytes in pieces:
                self._ring.append(layout, piece, nbytes)
                rows += piece.rows
            if self._transport is not None:
                self._transport.ring()
        if self._transport is None:
            self._start()
        return rows

    def _start(self) -> None:
        """Start the thread at the first batch, not in the constructor: a server may fork in between."""
        with self._lock:
            if self._transport is not None or self._closed:
                return
            self._transport = Sender(
                endpoints=self._endpoints,
                keys=self._keys,
                topic=self._topic,
                stream=self._stream,
                ring=self._ring,
                lock=self._lock,
                schemas=self._capture.schemas,
                tally=self._counters.tally,
            )
            self._transport.start()
        forks.close_with_a_worker(self.close)

    def _reject(self, reason: str, detail: str, rows: int) -> None:
        self._counters.reject(reason, detail, rows)
        if self._transport is None:
            self._start()  # so that the collector hears of it

    def _classes(self, default: Sequence[object]) -> list[object]:
        """The classes as they were given; those of a watched model where none were."""
        if not self._capture.classes:
            self._capture._name_classes(default)
        return list(self._capture._indices)

    def _after_fork(self) -> None:
        """In a forked child: the parent's thread and sockets are not here, and its rows are the parent's to send."""
        if self._transport is not None:
            self._abandoned.append(self._transport)
        self._capture.random = np.random.default_rng()  # siblings must not draw the same sample
        self._reset()


def _rows(*values: Any) -> int:
    """How many rows a refused batch had, as far as one can tell; at least 1."""
    for value in values:
        if value is not None:
            try:
                return max(1, len(value))
            except Exception:  # noqa: BLE001 - whatever was passed as a batch may do anything here
                return 1
    return 1
