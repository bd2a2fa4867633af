"""The features of a publisher: one set that grows, the kind of each, and their values as arrays of the wire. Pure.

The order of columns means nothing; a column that a table lacks is missing in its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from zmon import categories
from zmon._capture import kinds
from zmon._capture.faults import Faults
from zmon._capture.frames import ColumnData
from zmon._capture.names import feature_names
from zmon._capture.selection import Selection
from zmon._capture.tables import Table
from zmon._capture.unique import Uniqueness
from zmon._capture.values import is_missing
from zmon._wire.checks import MAX_COLUMNS, MAX_VECTORS
from zmon.batch import Array, Names
from zmon.categories import MISSING, Dictionaries
from zmon.errors import Rejected

PLANS = 64  # sets of names that are remembered


class Split(Exception):  # noqa: N818 - control flow between conversions
    """The snapshots that were joined must be converted one by one."""


class Feature:
    """One column: its kind is empty until the first value tells it."""

    __slots__ = ("declared", "hashed", "kind", "name", "place", "uniqueness", "width")

    def __init__(self, name: str, declared: str) -> None:
        self.name = name
        self.kind = {"id": "categorical"}.get(declared, declared)
        self.declared = bool(declared)  # the values of texts and vectors are sent only then
        self.hashed = declared == "id"  # a value is sent as its hash and length
        self.place = -1  # among the features of its array; −1 while it is not part of the schema
        self.width = 0  # of a vector
        self.uniqueness = Uniqueness() if not declared else None


class Inputs(NamedTuple):
    """Arrays of a table's rows, and the dictionaries of those that hold codes."""

    columns: list[tuple[str, Array]]
    dictionaries: dict[str, Dictionaries]


class Features:
    """All features of a publisher.

    Parameters
    ----------
    declared : sequence of str, optional
        Names of the columns; of tables with names, only these are captured.
    declared_kinds : mapping of str to str
        Kinds of features by name.
    selection : Selection
    """

    def __init__(self, declared: Sequence[str] | None, declared_kinds: Mapping[str, str], selection: Selection) -> None:
        self._declared = None if declared is None else tuple(declared)
        self._kinds = declared_kinds
        self._selection = selection
        self._features: dict[str, Feature] = {}
        self._arrays: dict[str, list[Feature]] = {"inputs": [], "codes": [], "texts": [], "vectors": []}
        self._plans: dict[Any, tuple[list[tuple[int, Feature]], list[str]]] = {}
        self.schema: list[Feature] = []  # in the order in which their kinds became known
        self.unmatched_kinds = set(declared_kinds)
        self.hashed: list[Feature] = []  # with a place in the arrays of hashes and lengths
        self.found_hashed: list[tuple[str, bool]] = []  # columns found to be nearly unique, or not to be after all

    @property
    def all_names(self) -> list[str]:
        """The columns of all tables so far that are captured."""
        return list(self._features)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.schema)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(feature.kind for feature in self.schema)

    def read(
        self, table: Table, faults: Faults, starts: Sequence[int], *, room: bool, pace: Callable[[], None]
    ) -> Inputs:
        """Return the captured columns of a table.

        Parameters
        ----------
        faults : Faults
            Gets the rows with values that do not fit.
        starts : sequence of int
            First row of each of the calls that were joined.
        room : bool
            Whether the schema may have further columns.
        pace : callable
            Called between two columns.
        """
        plan = self._plan(table, faults)
        if table.matrix is not None and self._all_numeric(plan, room):
            return Inputs([("inputs", self._matrix(table.matrix, plan))], {})
        found: list[tuple[Feature, Any]] = []
        for place, feature in plan:
            pace()
            if feature.place >= 0 and not self._is_read(feature):
                continue
            try:
                data = table.column(place)
            except Exception as error:  # noqa: BLE001 - the types of libraries of frames have no end
                if len(starts) > 1:
                    raise Split from None
                faults.add("inputs_dtype", f"feature {feature.name!r} cannot be read: {type(error).__name__}: {error}")
                continue
            if not feature.kind and not self._settle(feature, data, faults, starts):
                continue
            if feature.place < 0 and not self._admit(feature, data, faults, room):
                continue
            if self._is_read(feature):
                found.append((feature, self._converted(feature, data, faults, room)))
        return self._stacked(found, table.rows, pace)

    # --- which columns ---------------------------------------------------------------------------------------------

    def _plan(self, table: Table, faults: Faults) -> list[tuple[int, Feature]]:
        """Return the places and features of the columns to capture of tables with these names, or of this width."""
        key = table.width if table.names is None else table.names
        known = self._plans.get(key)
        if known is None:
            names = self._names(table)
            places = self._selection.places(names)
            if self._declared is not None:
                order = {name: i for i, name in enumerate(self._declared)}
                places = sorted((i for i in places if names[i] in order), key=lambda i: order[names[i]])
            if not places:
                columns = sorted(self._selection.names.union(names))[:5]
                why = f"features, include and exclude leave none of the columns {columns}"
                raise Rejected("inputs_columns", why if columns else "inputs have no columns")
            lacking = sorted(set(self._declared or ()) - set(names))
            known = [(i, self._feature(names[i])) for i in places], lacking
            if len(self._plans) < PLANS:
                self._plans[key] = known
        plan, lacking = known
        if lacking and not table.optional:
            faults.add("inputs_columns", f"inputs lack the declared features {lacking[:5]}")
        return plan

    def _names(self, table: Table) -> tuple[str, ...]:
        if table.names is not None:
            return feature_names(table.names)
        if self._declared is None:
            return tuple(f"feat_{i}" for i in range(table.width))
        if table.width != len(self._declared):
            raise Rejected(
                "inputs_shape", f"inputs of {table.width} columns; {len(self._declared)} features were declared"
            )
        return self._declared

    def _feature(self, name: str) -> Feature:
        feature = self._features.get(name)
        if feature is None:
            short = name.removeprefix("feat_")  # kinds={0: …} names the first column of an array
            key = name if name in self._kinds else short
            self.unmatched_kinds.discard(key)
            feature = Feature(name, self._kinds.get(key, ""))
            if len(self._features) < 2 * MAX_COLUMNS:
                self._features[name] = feature
        return feature

    @staticmethod
    def _is_read(feature: Feature) -> bool:
        """Return whether the values of a feature are sent."""
        if feature.kind in ("numeric", "boolean", "categorical"):
            return True
        return feature.declared and (feature.kind == "text" or feature.place < MAX_VECTORS)

    # --- kinds -----------------------------------------------------------------------------------------------------

    def _settle(self, feature: Feature, data: ColumnData, faults: Faults, starts: Sequence[int]) -> bool:
        """Determine the kind of a column by the first call that has a value in it; return whether it has one."""
        values = data.values
        if isinstance(values, list):
            first = next((i for i, value in enumerate(values) if not is_missing(value)), None)
            if first is None:
                return False
            at = max(i for i, start in enumerate(starts) if start <= first)
            stop = starts[at + 1] if at + 1 < len(starts) else len(values)
            values = values[starts[at] : stop]
        if data.category:
            feature.kind = "categorical"
            return True
        try:
            feature.kind = kinds.kind_of(values, feature.name)
        except Rejected as error:
            if len(starts) > 1:
                raise Split from None
            faults.add(error.reason, str(error), _present(data.values))
        return bool(feature.kind)

    def _admit(self, feature: Feature, data: ColumnData, faults: Faults, room: bool) -> bool:
        """Make a feature part of the schema, if there is room."""
        if not room or len(self.schema) >= MAX_COLUMNS:
            faults.add(
                "schema_changes",
                f"feature {feature.name!r} is left out: the columns of the inputs changed too often; name features=[…]",
                _present(data.values),
            )
            return False
        self._append(feature)
        if feature.hashed:
            self.hashed.append(feature)
        return True

    def _append(self, feature: Feature) -> None:
        group = {"numeric": "inputs", "text": "texts", "vector": "vectors"}.get(feature.kind, "codes")
        feature.place = len(self._arrays[group])
        self._arrays[group].append(feature)
        self.schema.append(feature)

    # --- arrays ----------------------------------------------------------------------------------------------------

    def _all_numeric(self, plan: list[tuple[int, Feature]], room: bool) -> bool:
        """Return whether all columns of a matrix are numeric features; new ones become such."""
        if not all(feature.kind in ("", "numeric") for _, feature in plan):
            return False
        new = [feature for _, feature in plan if feature.place < 0]
        if new and (not room or len(self.schema) + len(new) > MAX_COLUMNS):
            return False
        for feature in new:
            feature.kind = "numeric"
            self._append(feature)
        return True

    def _matrix(self, matrix: Array, plan: list[tuple[int, Feature]]) -> Array:
        places = [feature.place for _, feature in plan]
        width = len(self._arrays["inputs"])
        if len(places) == width and places == list(range(width)):
            return matrix if width == matrix.shape[1] else matrix[:, [i for i, _ in plan]]
        found = np.full((len(matrix), width), np.nan, dtype=np.result_type(matrix.dtype, np.float16))
        found[:, places] = matrix[:, [i for i, _ in plan]]
        return found

    def _converted(self, feature: Feature, data: ColumnData, faults: Faults, room: bool) -> Any:
        """Return a column in the form of its feature's kind; values that do not fit become missing ones."""
        values, kind = data.values, feature.kind
        wrong: list[int]
        column: Any
        if kind == "numeric":
            column, wrong = kinds.numbers(values)
        elif kind == "boolean":
            column, wrong = kinds.booleans(values)
        elif kind == "vector":
            column, feature.width, wrong = kinds.vectors(list(values), feature.width)
        else:
            column, wrong = kinds.categorical(values, declared=feature.declared or data.category)
            if feature.uniqueness is not None and not data.category:
                self._judge(feature, feature.uniqueness.add(column), room)
        if wrong:
            mask = np.zeros(faults.rows, dtype=bool)
            mask[wrong] = True
            reason = "inputs_dtype" if kinds.is_strange(values[wrong[0]], kind) else "inputs_kind"
            faults.add(reason, kinds.changed(feature.name, kind, values[wrong[0]]), mask)
        return column

    def _judge(self, feature: Feature, near_unique: bool, room: bool) -> None:
        """Send the values of a feature from now on as hashes if nearly all differ, else as categories."""
        if near_unique == feature.hashed or (feature in self.hashed and not room):
            return
        feature.hashed = near_unique
        self.found_hashed.append((feature.name, near_unique))
        if not near_unique and feature in self.hashed:
            self.hashed.remove(feature)
        elif near_unique and room:
            self.hashed.append(feature)

    def _stacked(self, found: list[tuple[Feature, Any]], rows: int, pace: Callable[[], None]) -> Inputs:
        columns: list[tuple[str, Array]] = []
        dictionaries: dict[str, Dictionaries] = {}
        numeric = [(feature, array) for feature, array in found if feature.kind == "numeric"]
        if numeric:
            width = len(self._arrays["inputs"])
            dtype = np.result_type(*{array.dtype for _, array in numeric})
            if len(numeric) < width or dtype.kind not in "fiu":
                dtype = np.result_type(dtype, np.float16)
            matrix = (
                np.full((rows, width), np.nan, dtype=dtype) if len(numeric) < width else np.empty((rows, width), dtype)
            )
            for feature, array in numeric:
                matrix[:, feature.place] = array
                pace()
            columns.append(("inputs", matrix))
        for name, its in (("codes", ("boolean", "categorical")), ("texts", ("text",))):
            coded = {feature.place: column for feature, column in found if feature.kind in its}
            if coded:
                width = len(self._arrays[name])
                codes = np.full((rows, width), MISSING, dtype=np.int32)
                for place, column in coded.items():
                    codes[:, place] = column.codes
                names = [coded[i].names if i in coded else () for i in range(width)]
                if name == "codes":
                    columns += self._hashes(codes, names)
                columns.append((name, codes))
                dictionaries[name] = tuple(names)
        columns += [(f"vector:{feature.place}", array) for feature, array in found if feature.kind == "vector"
                    and array is not None]  # fmt: skip
        return Inputs(columns, dictionaries)

    def _hashes(self, codes: Array, names: list[Names]) -> list[tuple[str, Array]]:
        """Return hashes and lengths of the values of hashed features, whose codes and names become those of OTHER."""
        pairs = {}
        for feature in self._arrays["codes"]:
            if feature.hashed:
                at = feature.place
                codes[:, at], *pairs[feature] = categories.hashed(codes[:, at], names[at])
                names[at] = (categories.OTHER,)
        stacked = zip(*(pairs[feature] for feature in self.hashed), strict=True)
        return [(name, np.column_stack(parts)) for name, parts in zip(("hashes", "lengths"), stacked, strict=False)]


def _present(values: Array | list[Any]) -> Array:
    """Return which values are not missing."""
    if isinstance(values, list):
        return np.array([not is_missing(value) for value in values], dtype=bool)
    if values.dtype.kind in "Mm":
        return ~np.isnat(values)
    return ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), dtype=bool)
