"""Arguments of `publish` from the results and inputs of watched calls: arrays, tensors, lists and mappings of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zmon._capture.columns import as_array
from zmon._watch import containers
from zmon.batch import Array
from zmon.errors import Rejected

_PREDICTED = ("label", "value")
FLAT_COLUMNS = 4096  # images up to 64 by 64 become columns; larger inputs are left out
_INPUT_NAMES = ("X", "x", "inputs", "input", "data")
_SYMBOLIC = {"SymbolicTensor", "KerasTensor", "DynamicJaxprTracer", "FakeTensor"}


def column(output: str, result: Any, *, multilabel: bool = False) -> tuple[str, Any]:
    """Return the column name for a call's result, and the values.

    Parameters
    ----------
    output : str
        One of `reading.OUTPUTS`, or ``"log_proba"``.
    result : array_like
        The call's result: an array, a tensor, a frame, a list, a mapping or a sequence that holds one of these, or a
        number for a single row (the values then have no axis).
    multilabel : bool
        Every column of logits is a class by itself.

    Examples
    --------
    >>> column("logits", [[0.0, 0.0]])
    ('probabilities', array([[0.5, 0.5]]))
    """
    if result is None:
        raise Rejected("output_missing", "the call returned None; watch a function that returns what the model returns")
    plain = type(result) is np.ndarray and result.dtype.kind != "V"  # bfloat16, and records
    if not plain:
        result = _single(result)
        if output == "proba" and is_frame(result):
            return "probabilities", result  # the publisher aligns the columns of frames with the classes by name
    values = result if plain else to_array(result, "predictions" if output in _PREDICTED else "probabilities")
    if output in _PREDICTED:
        if values.ndim > 1 and values.shape[-1] > 1:
            raise Rejected("multi_output", f"predictions of shape {values.shape}: one target per row can be watched")
        return "predictions", values
    if output == "logits":
        return "probabilities", _probabilities(values, multilabel)
    if output == "log_proba":
        return "probabilities", np.exp(values)
    return "probabilities", values


def _single(result: Any) -> Any:
    if isinstance(result, Mapping):
        if len(result) == 1:
            return next(iter(result.values()))
        names = ", ".join(sorted(map(str, result)))
        raise Rejected("multi_output", f"the call returns {names}; watch a function that returns the one to publish")
    if isinstance(result, list | tuple) and result and getattr(result[0], "ndim", 0) >= 2:
        if len(result) == 1:
            return result[0]
        raise Rejected("multi_output", f"the call returns {len(result)} outputs; watch a function that returns one")
    return result


def is_frame(value: Any) -> bool:
    """Return whether a value has named columns. Ask its type: an Arrow table computes them when asked itself."""
    return hasattr(type(value), "columns")


def to_array(value: Any, what: str) -> Array:
    """Return an array, a tensor on any device, or a list as an array; Rejected if it is none of these."""
    if type(value).__name__ in _SYMBOLIC:
        raise Rejected("symbolic", "the call was traced and had no values; watch the outermost compiled function")
    try:
        if hasattr(value, "detach"):  # a PyTorch tensor, perhaps on a device, perhaps with a gradient
            value = value.detach().cpu()
            value = (value.float() if "bfloat16" in str(value.dtype) else value).numpy()
        elif hasattr(value, "__cuda_array_interface__"):  # CuPy's, which refuses __array__
            value = value.get()
    except Exception as error:  # noqa: BLE001 - sparse tensors, tensors without values
        raise Rejected(f"{what}_dtype", f"{what} of type {type(value).__name__} are not an array: {error}") from None
    array = as_array(value, what)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _probabilities(logits: Array, multilabel: bool) -> Array:
    """Apply softmax over the last axis, or the logistic function if there is one logit per row, or per class."""
    if logits.dtype.kind not in "fiu":
        raise Rejected("probabilities_dtype", f"logits of dtype {logits.dtype}; expected numbers")
    if logits.ndim > 2:  # those of language models are large: computing them would cost the model's time
        raise Rejected("probabilities_shape", f"logits of shape {logits.shape}; expected (n, n_classes)")
    wide = logits.astype(np.result_type(logits.dtype, np.float32), copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        if multilabel or wide.ndim < 2 or wide.shape[-1] == 1:
            tail = np.exp(-np.abs(wide))
            positive: Array = np.where(wide >= 0, 1 / (1 + tail), tail / (1 + tail))
            return positive
        powers: Array = wide - wide.max(axis=-1, keepdims=True)
        np.exp(powers, out=powers)
        powers /= powers.sum(axis=-1, keepdims=True)
        return powers


def argument(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the inputs among a call's arguments: the first one, the one with a customary name, or all keywords."""
    if args:
        return args[0]
    for name in _INPUT_NAMES:
        if name in kwargs:
            return kwargs[name]
    return dict(kwargs) if len(kwargs) > 1 else next(iter(kwargs.values()), None)


def rows_in(result: Any) -> int:
    """Return the number of rows of a call's result, as far as it is known; at least 1."""
    try:
        if isinstance(result, Mapping):
            result = result["logits"] if "logits" in result else next(iter(result.values()))
        elif isinstance(result, list | tuple) and _is_output(result[0]):  # several outputs
            result = result[0]
        shape = getattr(result, "shape", None)
        if callable(shape):  # ONNX Runtime's values
            shape = shape()
        return max(1, int(shape[0] if shape is not None else len(result)))
    except Exception:  # noqa: BLE001 - a model's result may do anything here
        return 1


def _is_output(value: Any) -> bool:
    """Return whether one of several values is an array, or the maps of classes to probabilities of all rows."""
    return hasattr(value, "shape") or (isinstance(value, list) and isinstance(value[0], Mapping))


def inputs(value: Any, *, one_row: bool) -> Any:
    """Return the part of a call's inputs that can be columns, in its own form if possible; None if there is none.

    The outputs matter more: strings, data sets and images above 64 by 64 are left out, and the outputs are published
    without them.
    """
    if type(value) is np.ndarray and value.ndim == 2 and not one_row:
        return value
    if isinstance(value, list | tuple):
        if not value or isinstance(value[0], str | bytes) or getattr(value[0], "ndim", 0) >= 2:
            return None
        if not one_row and _is_table(value):
            return value
    elif isinstance(value, Mapping):
        return _named(value)
    elif value is None or isinstance(value, str | bytes):
        return None
    elif is_frame(value):
        return value
    elif hasattr(value, "nnz") and hasattr(value, "toarray"):  # a sparse matrix: those of texts are wide
        return value if value.shape[1] <= FLAT_COLUMNS else None
    elif containers.is_container(value):
        return inputs(containers.features(value), one_row=False)
    elif not (hasattr(value, "__array__") or hasattr(value, "detach") or np.isscalar(value)):
        return None
    try:
        array = to_array(value, "inputs")
    except Rejected:
        return None  # ragged, or of a type without columns
    if array.dtype.kind in "SUO" and array.ndim < 2:
        return None
    if one_row:
        return array.reshape(1, -1) if array.size <= FLAT_COLUMNS else None
    if array.ndim > 2:
        array = array.reshape(len(array), -1)
        return array if array.shape[1] <= FLAT_COLUMNS else None
    return array


def _is_table(rows: Sequence[Any]) -> bool:
    """Return whether a list holds dicts, or rows of one length without further lists in them."""
    first = rows[0]
    if not isinstance(first, list | tuple):
        return isinstance(first, dict)
    try:
        return len(set(map(len, rows))) == 1 and bool(first) and not isinstance(first[0], list | tuple | np.ndarray)
    except TypeError:  # a row that is none
        return False


def _named(columns: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return named columns of one length, or the named values of one row; None if it is neither.

    A signature and a Keras model with named inputs take columns of shape (n, 1).
    """
    found = {str(name): _column(value) for name, value in columns.items()}
    lengths = {len(value) if isinstance(value, list | np.ndarray) else None for value in found.values()}
    return found if len(lengths) == 1 and not any(value is _NO_COLUMN for value in found.values()) else None


_NO_COLUMN = object()


def _column(value: Any) -> Any:
    """Return one input as an array or a list of values; an atom as it is."""
    if isinstance(value, list | tuple) and not (value and isinstance(value[0], list | tuple)):
        return list(value)
    if not isinstance(value, list | tuple) and not hasattr(value, "shape"):
        return value
    try:
        array = to_array(value, "inputs")
    except Rejected:
        return _NO_COLUMN
    if array.ndim == 0:
        return array.item()
    return array.reshape(-1) if array.size == len(array) else _NO_COLUMN
