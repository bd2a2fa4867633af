"""The description of the API (OpenAPI 3.1). A test compares the routes with it."""

from __future__ import annotations

from typing import Any

from zmon_collector.dashboard.web.query_params import NAMES, RANGES, VIEWS


def _parameter(name: str, text: str, *, required: bool = False, **schema: Any) -> dict[str, Any]:
    value = {"type": "string", **schema}
    return {"name": name, "in": "query", "required": required, "description": text, "schema": value}


NUMBER: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 10**12 - 1}
MODEL = _parameter("model", "the logical model", required=True, minLength=1)
VERSION = _parameter("version", "its version; empty when the publisher gave none")
AGENT = _parameter("agent", "a replica; empty for the rollup over all of them, * for all and the rollup")
_NAMES = [_parameter(name, "only series with this name") for name in NAMES]
_VIEW = [
    _parameter("view", "which view", enum=list(VIEWS)),
    {**MODEL, "required": False},
    VERSION,
    AGENT,
    _parameter("what", "the measure, for the view of a series"),
    _parameter("range", "how much time up to now", enum=list(RANGES)),
    _parameter("to", "up to this time instead, in epoch seconds", **NUMBER),
]


JSON, EVENTS, PLAIN, CSV = "application/json", "text/event-stream", "text/plain", "text/csv"
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_WRONG = {"400": "a wrong question, which `error` describes"}
_LOGIN = {"type": "object", "required": ["token"], "properties": {"token": {"type": "string"}}}
_BUSY = {"503": "too many requests at a time; Retry-After says when to come again"}
_REFUSED = {"401": "a token is needed", "403": "another host name, or the page of another site"}


def _errors(texts: dict[str, str]) -> dict[str, Any]:
    return {code: {"description": text, "content": {JSON: {"schema": _ERROR}}} for code, text in texts.items()}


def _get(
    summary: str,
    parameters: list[dict[str, Any]] | None = None,
    kinds: tuple[str, ...] = (JSON,),
    errors: dict[str, str] | None = None,
) -> dict[str, Any]:
    answer = {"200": {"description": "as asked", "content": {kind: {} for kind in kinds}}}
    more = _errors({**_REFUSED, **(errors or {})})
    return {"get": {"summary": summary, "parameters": parameters or [], "responses": {**answer, **more}}}


def _state(summary: str, **others: str) -> dict[str, Any]:
    """Describe a probe: 503 is an answer, not an error."""
    probe = _get(summary)
    probe["get"]["responses"] |= {code: {"description": text, "content": {JSON: {}}} for code, text in others.items()}
    return probe


DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "zmon",
        "version": "1",
        "description": "What a collector's live page shows. Times are epoch seconds; windows are dated at their start. "
        "With a token: Authorization: Bearer TOKEN.",
    },
    "paths": {
        "/api/v1/models": _get("Models and versions with their replicas, and how each fares", errors=_BUSY),
        "/api/v1/series": _get(
            "Names of the rollup's series",
            [
                MODEL,
                VERSION,
                _parameter("q", "words that the names contain"),
                _parameter("limit", "at most 1000", **NUMBER),
            ],
            errors={**_WRONG, **_BUSY},
        ),
        "/api/v1/points": _get(
            "Points by series",
            [
                MODEL,
                VERSION,
                AGENT,
                _parameter("what", "measures, separated by commas", required=True, minLength=1),
                _parameter("stat", "statistics, separated by commas"),
                *_NAMES,
                _parameter("from", "first window start", **NUMBER),
                _parameter("to", "end, excluded", **NUMBER),
                _parameter("step", "seconds to gather windows by: counts are added, gauges averaged", **NUMBER),
                _parameter("format", "json or csv", enum=["json", "csv"]),
            ],
            (JSON, CSV),
            {**_WRONG, **_BUSY, "413": "more points than one answer may have"},
        ),
        "/api/v1/view": _get(
            "A view of the page, with its figures as plotly JSON", [*_VIEW, *_NAMES], errors={**_WRONG, **_BUSY}
        ),
        "/api/v1/events": _get(
            "The same view whenever it changes; each event is whole and numbered, Last-Event-ID resumes",
            [*_VIEW, *_NAMES],
            (EVENTS,),
            {**_WRONG, "503": "too many viewers"},
        ),
        "/api/v1/alerts": _get("Alerts with their history"),
        "/api/v1/health": _get("The collector's own health"),
        "/healthz": _state("The collector does its job", **{"503": "it does not, with the reasons"}),
        "/readyz": _state("The collector takes rows", **{"503": "not yet, or no longer"}),
        "/metrics": _get(
            "The collector's own health, and models' newest windows, in Prometheus' text format", kinds=(PLAIN,)
        ),
        "/openapi.json": _get("This description"),
        "/login": {
            "post": {
                "summary": "Trade the token for a cookie",
                "requestBody": {"required": True, "content": {JSON: {"schema": _LOGIN}}},
                "responses": {
                    "204": {"description": "the cookie is set"},
                    **_errors({**_REFUSED, **_BUSY, "413": "too long"}),
                },
            }
        },
    },
}
