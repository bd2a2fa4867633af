"""Anodot's protocol 3.0: a schema for each (model, version), its samples, and the bearer token that schemas need.

The dimensions of a schema are all names that a point may have, `what` included. It has two measurements: ``value``
(averaged) for gauges and ``count`` (summed) for counters. So it never changes with the metrics, and one watermark
ends a window of the model.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zmon.contract import DIMENSIONS, Point, Refused, Report
from zmon.errors import RetryLater
from zmon_plugins.anodot import LegalNames, refusal, samples
from zmon_plugins.api.chunk_sender import ChunkSender, Sample, SendingPaused

if TYPE_CHECKING:
    from zmon_plugins.api.client import Client

NAME_LIMIT = 200
FILL = "none"  # value of a dimension that a point does not have
RENEW = 60.0  # seconds before its expiry that a bearer token is renewed
LIFETIME = 600.0  # seconds that a bearer token without an expiry is used
POINT = ("what", "model", "model_version", "agent_id", *DIMENSIONS)
MEASUREMENTS = {
    "value": {"aggregation": "average", "countBy": "none"},
    "count": {"aggregation": "sum", "countBy": "none"},
}


def schema(name: str, fixed: Mapping[str, str]) -> dict[str, Any]:
    """Return the schema with this name; `fixed` properties are further dimensions."""
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
    """Yield the points as 3.0 samples of a schema."""
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
    """Check a sample like `refusal`: the rules for names, times and values are those of 2.0."""
    values = sample.get("measurements")
    if not isinstance(values, Mapping) or len(values) != 1:
        return Refused(sample, "2024", "not one measurement")
    (value,) = values.values()
    common = {key: sample.get(key) for key in ("timestamp", "tags")}
    refused = refusal({**common, "properties": sample.get("dimensions"), "value": value}, now)
    return refused and Refused(sample, refused.code, refused.description)


class StreamSchemas:
    """Ids of schemas, looked up by name; missing schemas are created.

    Parameters
    ----------
    client : Client
    sender : ChunkSender
        Keeps the pace, and the waits after failures.
    access_key : str
    now : callable
        Returns epoch seconds.
    """

    def __init__(self, client: Client, sender: ChunkSender, access_key: str, now: Callable[[], float]) -> None:
        client.keep_secret("the access key", access_key)
        self._client = client
        self._sender = sender
        self._access_key = access_key
        self._now = now
        self._bearer, self._ends = "", 0.0
        self._ids: dict[str, str] | None = None

    def id_of(self, name: str, fixed: Mapping[str, str]) -> str:
        """Return the id of the schema; RetryLater if it is not available now."""
        wanted = schema(name[:NAME_LIMIT], fixed)
        if self._ids is None:
            self._ids = dict(self._list())
        schema_id = self._ids.get(_key(wanted))
        if schema_id is None:
            created = self._request("POST", "/api/v2/stream-schemas", {}, wanted)
            schema_id = created.get("schema", {}).get("id") if isinstance(created, dict) else None
            if not isinstance(schema_id, str) or not schema_id:
                raise RetryLater("the API returned no id for a new schema", after=RENEW)
            self._ids[_key(wanted)] = schema_id
        return schema_id

    def _list(self) -> Iterator[tuple[str, str]]:
        listed = self._request("GET", "/api/v2/stream-schemas/schemas", {"excludeCubes": "true"}, None)
        for item in listed if isinstance(listed, list) else []:
            existing = item.get("streamSchemaWrapper", item).get("schema", item) if isinstance(item, dict) else {}
            if isinstance(existing.get("id"), str) and isinstance(existing.get("dimensions"), list):
                yield _key(existing), existing["id"]

    def _request(self, method: str, path: str, query: Mapping[str, str], body: Any) -> Any:
        self._renew()
        try:
            response = self._sender.request(
                lambda: self._client.request_as_bearer(method, path, query, body, self._bearer)
            )
        except SendingPaused:
            self._ends = 0.0  # the token may have been withdrawn before its expiry
            raise
        return _json(response.body)

    def _renew(self) -> None:
        """Get a bearer token, unless the last one is valid for a while."""
        if self._now() < self._ends - RENEW:
            return
        body = {"refreshToken": self._access_key}
        response = self._sender.request(
            lambda: self._client.request_as_bearer("POST", "/api/v2/access-token", {}, body, "")
        )
        token = _json(response.body)
        self._bearer = token if isinstance(token, str) else response.body.decode("utf-8", "replace").strip().strip('"')
        self._client.keep_secret("the bearer", self._bearer)
        self._ends = expiry(self._bearer) or self._now() + LIFETIME


def _key(schema: Mapping[str, Any]) -> str:
    """Return a key by name and dimensions: a schema with the same name and other dimensions is a different one."""
    return json.dumps([schema.get("name"), sorted(map(str, schema["dimensions"]))])


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def expiry(token: str) -> float:
    """Return the expiry of a JWT in epoch seconds; 0 if it has none.

    >>> expiry("e30." + base64.urlsafe_b64encode(b'{"exp": 1700000000}').decode().rstrip("=") + ".sig")
    1700000000.0
    """
    try:
        part = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["exp"])
    except (IndexError, ValueError, KeyError, TypeError):
        return 0.0
