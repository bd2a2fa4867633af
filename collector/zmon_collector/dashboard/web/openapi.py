"""The description of the API (OpenAPI 3.1). A test compares the routes with it."""

from __future__ import annotations

from typing import Any

from zmon_collector.dashboard.web.query_params import NAMES, RANGES, VIEWS


def _parameter(name: str, text: str, *, required: bool = False, **schema: Any) -> dict[str, Any]:
    value = {"type": "string", **schema}
    return {"name": name, "in": "query", "required": required, "description": text, "schema": value}


MODEL = _parameter("model", "the logical model", required=True)
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
    _parameter("to", "up to this time instead, in epoch seconds", type="integer"),
]


def _get(
    summary: str, parameters: list[dict[str, Any]], kind: str = "application/json", **others: str
) -> dict[str, Any]:
    answers = {"200": {"description": "as asked", "content": {kind: {}}}}
    more = {code: {"description": text} for code, text in others.items()}
    return {"get": {"summary": summary, "parameters": parameters, "responses": {**answers, **more}}}


DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "zmon",
        "version": "1",
        "description": "What a collector's live page shows. Times are epoch seconds; windows are dated at their start. "
        "With a token: Authorization: Bearer TOKEN.",
    },
    "paths": {
        "/api/v1/models": _get("Models and versions with their replicas, and how each fares", []),
        "/api/v1/series": _get(
            "Names of the rollup's series",
            [
                MODEL,
                VERSION,
                _parameter("q", "words that the names contain"),
                _parameter("limit", "at most 1000", type="integer"),
            ],
            **{"400": "a wrong question"},
        ),
        "/api/v1/points": _get(
            "Points by series",
            [
                MODEL,
                VERSION,
                AGENT,
                _parameter("what", "measures, separated by commas", required=True),
                _parameter("stat", "statistics, separated by commas"),
                *_NAMES,
                _parameter("from", "first window start", type="integer"),
                _parameter("to", "end, excluded", type="integer"),
                _parameter("step", "seconds to gather windows by: counts are added, gauges averaged", type="integer"),
                _parameter("format", "json or csv", enum=["json", "csv"]),
            ],
            **{"400": "a wrong question", "413": "more points than one answer may have"},
        ),
        "/api/v1/view": _get("A view of the page, with its figures as plotly JSON", [*_VIEW, *_NAMES]),
        "/api/v1/events": _get(
            "The same view whenever it changes; each event is whole and numbered, Last-Event-ID resumes",
            [*_VIEW, *_NAMES],
            "text/event-stream",
            **{"503": "too many viewers"},
        ),
        "/api/v1/alerts": _get("Alerts with their history", []),
        "/api/v1/health": _get("The collector's own health", []),
        "/healthz": _get("The collector does its job", [], **{"503": "it does not, with the reasons"}),
        "/readyz": _get("The collector takes rows", [], **{"503": "not yet, or no longer"}),
        "/metrics": _get("The collector's own health, and models' newest windows, in Prometheus' text format", []),
        "/openapi.json": _get("This description", []),
        "/login": {
            "post": {
                "summary": 'Trade the token for a cookie: {"token": …}',
                "responses": {"204": {"description": "the cookie is set"}, "401": {"description": "a wrong token"}},
            }
        },
    },
}
