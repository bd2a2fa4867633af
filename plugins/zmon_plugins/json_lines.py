"""Encode a report's samples as lines of JSON, checked against Anodot's rules. Pure.

The same names occur in many samples of a window. Every name is made legal, checked and encoded once, and lines are
assembled from these parts. A report with any violation takes the general path, sample by sample.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from operator import getitem
from typing import NamedTuple

from zmon.contract import DIMENSIONS, Point, Refused, Report, Value
from zmon_plugins.anodot import PROPERTY_LIMIT, RESERVED, LegalNames, number_of, refusal, samples

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_NAMES_END = ',"ver":'  # a quote inside a name is escaped, so this is found nowhere else


class EncodedSamples(NamedTuple):
    """Valid samples, one per line, and the refused ones."""

    good: list[str]
    refused: list[Refused]


def lines(report: Report, names: LegalNames, now: float, fixed: Mapping[str, str] | None = None) -> EncodedSamples:
    """Encode the report's points as `samples` makes them, without those that Anodot would refuse at the time `now`.

    >>> from zmon.contract import Window
    >>> report = Report(1, "fraud", "", Window(0, 60), [Point(None, Value("recall", 0.5, "yes"))])
    >>> lines(report, LegalNames(), 60.0).good[0].partition("},")[0]
    '{"properties":{"what":"recall","model":"fraud","class_name":"yes","ver":"1","target_type":"gauge"'
    """
    good = _from_parts(report, names, now, fixed or {})
    return _one_by_one(report, names, now, fixed) if good is None else EncodedSamples(good, [])


def _one_by_one(report: Report, names: LegalNames, now: float, fixed: Mapping[str, str] | None) -> EncodedSamples:
    encoded = EncodedSamples([], [])
    for sample in samples(report, names, fixed=fixed):
        refused = refusal(sample, now)
        if refused is None:
            encoded.good.append(_encode(sample))
        else:
            encoded.refused.append(refused)
    return encoded


def _from_parts(report: Report, names: LegalNames, now: float, fixed: Mapping[str, str]) -> list[str] | None:
    """Return all lines; None if a part violates a rule, or if samples may have too many properties."""
    if len(fixed) + len(RESERVED) > PROPERTY_LIMIT or not fixed.keys().isdisjoint(RESERVED):
        return None
    around = _around(report, names, now, fixed)
    inner = _inner(report, names, now)
    if around is None or inner is None:
        return None
    good = []
    try:
        for point in report.points:
            value, number = point.value, number_of(point)
            if not math.isfinite(number):
                return None
            head, tail = around[point.agent_id, value.what, value.target_type]
            good.append(f"{head}{''.join(map(getitem, inner, value[2:-1]))}{tail}{number!r}}}")
    except (OverflowError, KeyError):  # a whole number beyond a double's range; None for a name that does not apply
        return None
    return good


def _around(
    report: Report, names: LegalNames, now: float, fixed: Mapping[str, str]
) -> dict[tuple[str | None, str, str], tuple[str, str]] | None:
    """Return the JSON before and after a series' dimensions, up to the number, by agent, what and target type."""
    keys = dict.fromkeys((agent, value.what, value.target_type) for agent, value in report.points)
    bare = [Point(agent, Value(what, 0, target_type=kind)) for agent, what, kind in keys]
    around = {}
    for key, sample in zip(keys, samples(report, names, bare, fixed), strict=True):
        if refusal(sample, now) is not None:
            return None
        head, end, tail = _encode(sample).partition(_NAMES_END)
        around[key] = (head, end + tail.removesuffix("0}"))
    return around


def _inner(report: Report, names: LegalNames, now: float) -> list[dict[str, str]] | None:
    """Return, for each of DIMENSIONS, the encoded string of every name; that of the empty name is empty."""
    encoded = []
    columns = zip(*(point.value[2:-1] for point in report.points), strict=True)
    for key, column in zip(DIMENSIONS, columns, strict=False):
        legal = names.legal(key, [name for name in dict.fromkeys(column) if name])
        for form in legal.values():
            if refusal({"properties": {"what": "it", key: form}, "timestamp": 0, "value": 0}, now) is not None:
                return None
        encoded.append({"": "", **{name: f',"{key}":{_encode(form)}' for name, form in legal.items()}})
    return encoded
