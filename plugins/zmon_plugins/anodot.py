"""Anodot 2.0 samples: legal names that stay distinct, and the rules of the vendor's API. Pure."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from zmon.contract import DIMENSIONS, Point, Refused, Report, target_type

log = logging.getLogger("zmon.anodot")

KEY_LIMIT = 50
VALUE_LIMIT = 150
PROPERTY_LIMIT = 20
TAG_LIMIT = 40
FUTURE_LIMIT = 3600  # seconds
LONGEST = 1000  # characters of a description
REMEMBERED = 100_000  # names per key; beyond that every changed name gets its hash
TARGET_TYPES = ("gauge", "counter")
RESERVED = ("what", "model", "model_version", "agent_id", *DIMENSIONS, "ver", "target_type")  # properties of points

_ILLEGAL = re.compile(r"[.=\s]")


class LegalNames:
    """Maps names to legal forms, key by key, so that two different names never become equal.

    ``.``, ``=`` and white space become ``_``; a name that is too long is cut and gets ``_`` and 8 hex digits of its
    hash. If two names would become equal, every changed one gets its hash, so the result does not depend on their
    order. This is logged once per name.

    >>> names = LegalNames()
    >>> names.legal("class_name", ["petal length", "a.b", "a_b"])
    {'petal length': 'petal_length', 'a.b': 'a_b_31d1e1bc', 'a_b': 'a_b'}
    """

    def __init__(self) -> None:
        self._names: dict[str, dict[str, set[str]]] = {}  # key → legal form → names that have it
        self._reported: set[tuple[str, str]] = set()

    def legal(self, key: str, names: list[str]) -> dict[str, str]:
        """Return the legal form of each name under `key`, given these and all earlier names."""
        by_form = self._names.setdefault(key, {})
        full = len(by_form) >= REMEMBERED
        plain = {name: _plain(name) for name in names}
        if not full:
            for name, form in plain.items():
                by_form.setdefault(form, set()).add(name)
        result = {}
        for name, form in plain.items():
            shared = full or len(by_form[form]) > 1
            result[name] = form if form == name or not shared else _hashed(name, form)
            if shared and form != name and (key, name) not in self._reported and not full:
                self._reported.add((key, name))
                log.warning("%s %r would become %r like %s; it is sent as %r",
                            key, name, form, sorted(by_form[form] - {name})[:3], result[name])  # fmt: skip
        return result


def _plain(name: str) -> str:
    form = _ILLEGAL.sub("_", name)
    return _hashed(name, form) if len(form) > VALUE_LIMIT else form


def _hashed(name: str, form: str) -> str:
    return f"{form[: VALUE_LIMIT - 9]}_{blake2b(name.encode(errors='surrogatepass'), digest_size=4).hexdigest()}"


def samples(
    report: Report, names: LegalNames, points: Sequence[Point] | None = None, fixed: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the report's points, or the given ones, as Anodot 2.0 samples, with legal names and `fixed` properties."""
    points = report.points if points is None else points
    named = [report.properties(point) for point in points]
    by_key: dict[str, dict[str, None]] = {}
    for properties in named:
        for key, name in properties.items():
            by_key.setdefault(key, {})[name] = None
    legal = {key: names.legal(key, list(values)) for key, values in by_key.items()}
    tags = {agent: _tags(given) for agent, given in report.tags.items()}
    for point, properties in zip(points, named, strict=True):
        yield {
            "properties": {
                **(fixed or {}),
                **{key: legal[key][name] for key, name in properties.items()},
                "ver": "1",
                "target_type": target_type(point.value),
            },
            "tags": tags.get(point.agent_id or "", {}),
            "timestamp": report.window.start,
            "value": number_of(point),
        }


def number_of(point: Point) -> float:
    """Return the point's value as a plain int or float."""
    value = point.value.value
    return int(value) if isinstance(value, int) else float(value)


def _tags(tags: Mapping[str, str]) -> dict[str, list[str]]:
    named = [(key, value) for key, value in tags.items() if key and value]  # Anodot refuses empty ones
    return {_plain(key)[:KEY_LIMIT]: [_plain(value)] for key, value in named[:TAG_LIMIT]}


def fixed_properties(value: object) -> dict[str, str]:
    """Check the configured properties that are added to every sample; ValueError if Anodot would refuse them.

    >>> fixed_properties({"env": "prod"})
    {'env': 'prod'}
    """
    if not isinstance(value, dict):
        raise ValueError(f'{value!r:.60} is not a table of strings; write it as {{ env = "prod" }}')
    taken = sorted(set(value) & set(RESERVED))
    if taken:
        raise ValueError(f"{', '.join(taken)}: points already have this property; choose another name")
    for key, text in value.items():
        faults = _name_faults(key, text, (2006, 2007, 2008, 2009, 2010, 2011))
        if faults:
            raise ValueError(faults[0])
    if len(value) + len(RESERVED) > PROPERTY_LIMIT:
        raise ValueError(
            f"{len(value)} properties and the {len(RESERVED)} that a point may have exceed Anodot's limit of "
            f"{PROPERTY_LIMIT}; remove {len(value) + len(RESERVED) - PROPERTY_LIMIT}"
        )
    return dict(value)


def refusal(sample: object, now: float) -> Refused | None:
    """Return None for a valid sample, else the code of its first violation and the description of all."""
    if not isinstance(sample, Mapping):
        return Refused({"text": f"{sample!r:.200}"}, "1001", f"not a JSON object: {sample!r:.80}")
    faults = violations(sample, now)
    return Refused(sample, faults[0][:4], "; ".join(fault[5:] for fault in faults)[:LONGEST]) if faults else None


def violations(sample: Mapping[str, Any], now: float) -> list[str]:
    """Return the reasons for which the API would refuse a sample, each with its error code; none if it is valid.

    Parameters
    ----------
    sample : mapping
        An Anodot 2.0 sample.
    now : float
        Epoch seconds, for timestamps in the future.
    """
    properties, tags = sample.get("properties"), sample.get("tags", {})
    if not isinstance(properties, Mapping) or not properties:
        return ["2004 no properties"]
    if not isinstance(tags, Mapping):
        return ["2013 tags are not a map"]
    faults = []
    if len(properties) > PROPERTY_LIMIT:
        faults.append(f"2005 {len(properties)} properties, at most {PROPERTY_LIMIT}")
    if "what" not in properties:
        faults.append("2012 no property 'what'")
    if not _are_legal(properties):
        for key, value in properties.items():
            faults += _name_faults(key, value, (2006, 2007, 2008, 2009, 2010, 2011))
    if properties.get("target_type", "gauge") not in TARGET_TYPES:
        faults.append(f"2030 target_type {properties['target_type']!r}")
    if len(tags) > TAG_LIMIT:
        faults.append(f"2013 {len(tags)} tags, at most {TAG_LIMIT}")
    for key, values in tags.items():
        if not isinstance(values, list):
            faults.append(f"2019 tag {key!r} is not an array")
            continue
        for value in values:
            faults += _name_faults(key, value, (2014, 2015, 2016, 2017, 2018, 2019))
    return faults + _time_faults(sample.get("timestamp"), now) + _value_faults(sample.get("value"))


def _are_legal(names: Mapping[Any, Any]) -> bool:
    """Check all keys and values at once, which is fast; `_name_faults` finds the illegal ones."""
    keys, values = names.keys(), names.values()
    try:
        text = "".join([*keys, *values])
    except TypeError:
        return False
    lengths = (max(map(len, keys)) <= KEY_LIMIT, max(map(len, values)) <= VALUE_LIMIT)
    return all(lengths) and all(keys) and all(values) and not _ILLEGAL.search(text)


def _name_faults(key: object, value: object, codes: tuple[int, ...]) -> list[str]:
    key_empty, key_long, value_empty, value_long, key_illegal, value_illegal = codes
    faults = []
    value = str(value) if type(value) is int else value  # the vendor's own client sends `ver` as a number
    for what, text, limit, empty, long, illegal in (
        ("key", key, KEY_LIMIT, key_empty, key_long, key_illegal),
        ("value", value, VALUE_LIMIT, value_empty, value_long, value_illegal),
    ):
        if not isinstance(text, str) or not text:
            faults.append(f"{empty} {what} {text!r} is empty or not a string")
        elif len(text) > limit:
            faults.append(f"{long} {what} {text[:30]!r}… of {len(text)} characters, at most {limit}")
        elif _ILLEGAL.search(text):
            faults.append(f"{illegal} {what} {text!r} holds '.', '=' or white space")
    return faults


def _time_faults(timestamp: object, now: float) -> list[str]:
    if timestamp is None:
        return ["2020 no timestamp"]
    if type(timestamp) is not int:
        return [f"2021 timestamp {timestamp!r} is not a whole number of seconds"]
    if timestamp < 0:
        return [f"2023 timestamp {timestamp} is negative"]
    return [f"2022 timestamp {timestamp} is more than an hour ahead"] if timestamp > now + FUTURE_LIMIT else []


def _value_faults(value: object) -> list[str]:
    if value is None:
        return ["2024 no value"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [f"2025 value {value!r} is not a number"]
    try:
        return [] if math.isfinite(value) else [f"2026 value {value} is not finite"]
    except OverflowError:
        return ["2026 value is a whole number beyond a double's range"]
