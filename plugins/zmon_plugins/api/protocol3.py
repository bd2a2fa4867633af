"""Anodot's protocol 3.0: a schema for each (model, version), samples of it, and the bearer token that schemas need.

One schema has every name a point may carry as a dimension, `what` among them, and two measurements: ``value``
(averaged) for gauges and ``count`` (summed) for counters. So it never changes, whatever metrics there are, and one
watermark ends a window of the model.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from zmon.contract import DIMENSIONS, Point, Refused, Report
from zmon.errors import RetryLater
from zmon_plugins.anodot import LegalNames, refusal, samples
from zmon_plugins.api.chunk_sender import ChunkSender, Sample, SendingPaused
from zmon_plugins.api.client import Client

NAME_LIMIT = 200
FILL = "none"  # what a dimension is that a point does not have
RENEW = 60.0  # seconds before its end a bearer token is renewed
LASTS = 600.0  # seconds that a bearer token is used which does not say when it ends
POINT = ("what", "model", "model_version", "agent_id", *DIMENSIONS)
MEASUREMENTS = {
    "value": {"aggregation": "average", "countBy": "none"},
    "count": {"aggregation": "sum", "countBy": "none"},
}


def schema(name: str, fixed: Mapping[str, str]) -> dict[str, Any]:
    """The schema of this name; `fixed` properties are further dimensions."""
    return {
        "version": "1",
        "name": name,
        "dimensions": [*POINT, *fixed],
        "measurements": MEASUREMENTS,
        "missingDimPolicy": {"action": "fill", "fill": FILL},
    }


def samples3(
    report: Report, names: LegalNames, points: Sequence[Point], fixed: Mapping[str, str], schema_id: str
) -> Iterator[dict[str, Any]]:
    """The points as 3.0 samples of a schema."""
    for sample in samples(report, names, points, fixed):
        kind = "count" if sample["properties"].pop("target_type") == "counter" else "value"
        del sample["properties"]["ver"]
        yield {
            "schemaId": schema_id,
            "timestamp": sample["timestamp"],
            "dimensions": sample["properties"],
            "measurements": {kind: sample["value"]},
            "tags": sample["tags"],
        }


def refusal3(sample: Sample, now: float) -> Refused | None:
    """As `refusal`: the rules for names, times and values are those of 2.0."""
    values = sample.get("measurements")
    if not isinstance(values, Mapping) or len(values) != 1:
        return Refused(sample, "2024", "not one measurement")
    (value,) = values.values()
    found = refusal(
        {
            **{key: sample.get(key) for key in ("timestamp", "tags")},
            "properties": sample.get("dimensions"),
            "value": value,
        },
        now,
    )
    return found and Refused(sample, found.code, found.description)


class StreamSchemas:
    """The ids of schemas, looked up by name and created when they are not there.

    Parameters
    ----------
    client : Client
    courier : ChunkSender
        For the pace, and the waits after failures.
    access_key : str
    now : callable
        Epoch seconds.
    """

    def __init__(self, client: Client, courier: ChunkSender, access_key: str, now: Callable[[], float]) -> None:
        client.keep_secret("the access key", access_key)
        self._client = client
        self._sender = courier
        self._access_key = access_key
        self._now = now
        self._bearer, self._ends = "", 0.0
        self._ids: dict[str, str] | None = None

    def id_of(self, name: str, fixed: Mapping[str, str]) -> str:
        """The id of the schema; RetryLater when it cannot be had now."""
        wanted = schema(name[:NAME_LIMIT], fixed)
        if self._ids is None:
            self._ids = dict(self._listed())
        found = self._ids.get(_key(wanted))
        if found is None:
            made = self._ask("POST", "/api/v2/stream-schemas", {}, wanted)
            found = made.get("schema", {}).get("id") if isinstance(made, dict) else None
            if not isinstance(found, str) or not found:
                raise RetryLater("the API gave no id for a new schema", after=RENEW)
            self._ids[_key(wanted)] = found
        return found

    def _listed(self) -> Iterator[tuple[str, str]]:
        found = self._ask("GET", "/api/v2/stream-schemas/schemas", {"excludeCubes": "true"}, None)
        for each in found if isinstance(found, list) else []:
            known = each.get("streamSchemaWrapper", each).get("schema", each) if isinstance(each, dict) else {}
            if isinstance(known.get("id"), str) and isinstance(known.get("dimensions"), list):
                yield _key(known), known["id"]

    def _ask(self, method: str, path: str, query: Mapping[str, str], body: Any) -> Any:
        self._renew()
        try:
            answer = self._sender.ask(lambda: self._client.as_bearer(method, path, query, body, self._bearer))
        except SendingPaused:
            self._ends = 0.0  # it may have been withdrawn before its time
            raise
        return _json(answer.body)

    def _renew(self) -> None:
        """A bearer token that lasts for a while yet."""
        if self._now() < self._ends - RENEW:
            return
        body = {"refreshToken": self._access_key}
        answer = self._sender.ask(lambda: self._client.as_bearer("POST", "/api/v2/access-token", {}, body, ""))
        found = _json(answer.body)
        self._bearer = found if isinstance(found, str) else answer.body.decode("utf-8", "replace").strip().strip('"')
        self._client.keep_secret("the bearer", self._bearer)
        self._ends = expiry(self._bearer) or self._now() + LASTS


def _key(known: Mapping[str, Any]) -> str:
    """A schema of the same name but with other dimensions is another one."""
    return json.dumps([known.get("name"), sorted(map(str, known["dimensions"]))])


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def expiry(token: str) -> float:
    """When a JWT ends, epoch seconds; 0 when it does not say.

    >>> expiry("e30." + base64.urlsafe_b64encode(b'{"exp": 1700000000}').decode().rstrip("=") + ".sig")
    1700000000.0
    """
    try:
        part = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["exp"])
    except (IndexError, ValueError, KeyError, TypeError):
        return 0.0
