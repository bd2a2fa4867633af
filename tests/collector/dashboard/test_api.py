"""The API says what the history holds, is described as it is, and refuses what makes no sense."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from starlette.routing import Route
from zmon_collector.dashboard.timeseries import TimeSeries
from zmon_collector.dashboard.web import openapi
from zmon_collector.dashboard.web.app import build_app, probe_routes
from zmon_collector.dashboard.web.exports import csv_pieces
from zmon_collector.dashboard.web.security import Access
from zmon_collector.dashboard.web.sse import Broadcaster

from tests.support.collectors import Collector
from tests.support.pages import Start, get, shown
from tests.support.reports import window
from tests.support.waiting import until

Client = Callable[..., httpx.Client]


@pytest.fixture
def served(paged: Start) -> Collector:
    collector = paged()
    base = int(time.time()) // 10 * 10 - 100
    shown(collector, *(window(i + 1, base + 10 * i, confidence=0.9 - 0.1 * (i == 9)) for i in range(10)))
    return collector


def test_models_and_their_replicas(served: Collector, client: Client) -> None:
    (model,) = client(served).get("/api/v1/models").json()["models"]
    assert (model["model"], model["rows"], model["rows_per_second"]) == ("m", 200, 20.0)
    assert [agent["agent"] for agent in model["agents"]] == ["a", "b"]
    assert model["confidence"] == pytest.approx(0.8)
    assert len(model["trend"]["confidence"]) == 10


def test_points_by_range_and_step(served: Collector, client: Client) -> None:
    params = {"model": "m", "what": "buffer_count"}
    (line,) = client(served).get("/api/v1/points", params=params).json()["series"]
    assert line["values"] == [200.0] * 10
    first = line["times"][0]
    (part,) = (
        client(served).get("/api/v1/points", params={**params, "from": first + 20, "to": first + 40}).json()["series"]
    )
    assert part["times"] == [first + 20, first + 30]
    (steps,) = client(served).get("/api/v1/points", params={**params, "step": 1000}).json()["series"]
    assert sum(steps["values"]) == 2000
    every = client(served).get("/api/v1/points", params={**params, "agent": "*"}).json()["series"]
    assert [each["names"].get("agent_id") for each in every] == [None, "a", "b"]


def test_csv_has_a_column_for_each_name_and_no_formula(paged: Start, client: Client) -> None:
    collector = paged()
    shown(collector, window(1, 0, features=("=1+1", "a,b")))
    params = {"model": "m", "what": "feature_value", "stat": "mean", "format": "csv"}
    answer = client(collector).get("/api/v1/points", params=params)
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["feat_name"], row["value"], row["time"]) for row in rows] == [
        ("'=1+1", "0.0", "1970-01-01T00:00:00+00:00"),
        ("a,b", "1.0", "1970-01-01T00:00:00+00:00"),
    ]
    assert "attachment" in answer.headers["content-disposition"]


@pytest.mark.parametrize("first", "=+-@＝＋－＠\t\r\n", ids=lambda first: f"{ord(first):04x}")
def test_no_cell_of_csv_begins_like_a_formula(first: str) -> None:
    ts = TimeSeries({"what": "f1", "model": f"{first}=1+1"}, np.array([0]), np.array([0.5]))
    _, row = csv.reader(io.StringIO(b"".join(csv_pieces([ts])).decode(), newline=""))
    assert row[3] == f"'{first}=1+1"


def test_series_are_found_by_words(served: Collector, client: Client) -> None:
    found = client(served).get("/api/v1/series", params={"model": "m", "q": "AMOUNT mean"}).json()["series"]
    assert found == [{"what": "feature_value", "model": "m", "stat": "mean", "feat_name": "amount"}]


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/api/v1/points", 400, "model is missing"),
        ("/api/v1/points?model=m", 400, "what is missing"),
        ("/api/v1/points?model=m&what=accuracy&from=yesterday", 400, "whole number"),
        ("/api/v1/view?view=secret", 400, "use one of"),
        ("/api/v1/view?view=model", 400, "model is missing"),
        ("/api/v1/view?view=model&model=m&range=1y", 400, "use one of"),
        ("/api/v1/view?view=model&model=m&to=9999999999999", 400, "whole number"),
        ("/api/v1/view?view=model&model=m&to=-1", 400, "whole number"),
        ("/api/v1/view?view=model&model=m&to=nan", 400, "whole number"),
        ("/api/v1/view?view=model&model=m&to=%D9%A3", 400, "whole number"),
        ("/api/v1/points?model=m&what=a&step=1e3", 400, "whole number"),
        ("/api/v1/points?model=m&what=a&from=" + "9" * 6000, 400, "whole number"),
        ("/api/v1/points?model=m&what=" + "a," * 5000, 400, "at most 1000"),
        ("/api/v1/points?model=m&what=a&stat=" + "a," * 5000, 400, "at most 1000"),
        ("/api/v1/points?model=m&what=" + "a" * 20_000, 400, "longer than"),
        ("/api/v1/series?model=m&limit=inf", 400, "whole number"),
    ],
    ids=range(16),
)
def test_a_wrong_question_is_answered(served: Collector, client: Client, path: str, status: int, says: str) -> None:
    answer = client(served).get(path)
    assert (answer.status_code, says in answer.json()["error"]) == (status, True)


@pytest.mark.parametrize(
    "query",
    ["model=%00", "model=%ff%fe", "model=%", "model=%zz", "model=m&version=%ed%a0%80", "model=m&agent=%00", "=&&&=",
     "model=m&model=n", "model=m&to=0", "model=m&to=999999999999", "model=" + "%F0%9F%98%80" * 4000],
    ids=range(11),
)  # fmt: skip
def test_odd_names_are_names(served: Collector, client: Client, query: str) -> None:
    for path in ("view?view=model&", "view?view=series&what=%00&", "points?what=accuracy&", "series?q=%00&limit=0&"):
        answer = client(served).get(f"/api/v1/{path}{query}")
        assert answer.status_code in (200, 400), answer.text
        assert answer.json()


@pytest.mark.parametrize("number", ["9" * 6000, "-1", "1.5", "\u0663", "", "abc"], ids=range(6))
def test_a_number_of_an_event_that_is_none_begins_anew(served: Collector, client: Client, number: str) -> None:
    headers = [("last-event-id", number.encode())]
    with client(served).stream("GET", "/api/v1/events?view=overview", headers=headers) as answer:
        assert answer.status_code == 200
        assert any(line == "event: view" for line in answer.iter_lines())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/static/%00", 404), ("GET", "/%ff", 404), ("GET", "/static/" + "a" * 5000, 404), ("POST", "/", 405),
     ("BREW", "/api/v1/models", 405), ("DELETE", "/api/v1/view", 405)],
    ids=range(6),
)  # fmt: skip
def test_odd_paths_and_methods(served: Collector, client: Client, method: str, path: str, status: int) -> None:
    assert client(served).request(method, path).status_code == status


@pytest.mark.parametrize("view", ["overview", "model", "series", "alerts", "health"])
def test_every_view_is_data_with_figures_or_a_reason(served: Collector, client: Client, view: str) -> None:
    params = {"view": view, "model": "m", "what": "accuracy"}
    found = client(served).get("/api/v1/view", params=params).json()
    assert found["view"] == view
    assert "error" not in found
    for panel in found.get("panels", []):
        assert panel["figure"] is not None or len(panel["empty"]) > 10
        if panel["figure"]:
            assert panel["figure"]["data"]


def test_an_unknown_model_is_no_error(served: Collector, client: Client) -> None:
    assert client(served).get("/api/v1/view", params={"view": "model", "model": "other"}).json()["missing"]


def test_history_survives_a_restart(paged: Start, client: Client) -> None:
    first = paged(folder="same")
    shown(first, *(window(i + 1, 10 * i) for i in range(5)))
    first.stop()
    again = paged(folder="same")
    (model,) = until(lambda: client(again).get("/api/v1/models").json()["models"], what="the overview")
    assert (model["newest"], len(model["trend"]["accuracy"])) == (40, 5)
    assert model["state"] == "silent"


def test_the_description_is_that_of_the_routes() -> None:
    app = build_app(
        None, Broadcaster(lambda params: (None, 0.0), 1), probe_routes(lambda: True, bytes), Access(None, set())
    )  # type: ignore[arg-type]
    routes = {route.path for route in app.app.routes if isinstance(route, Route)}  # type: ignore[attr-defined]
    described = set(openapi.DOCUMENT["paths"])
    assert routes - {"/", "/static/plotly.js", "/static/templates.json"} == described


def test_every_described_parameter_is_taken(served: Collector, client: Client) -> None:
    """Each query parameter of the description changes nothing for the worse: the answer stays a good one."""
    values = {"model": "m", "what": "accuracy", "view": "model", "range": "1h", "format": "json"}
    for path, methods in openapi.DOCUMENT["paths"].items():
        if "get" not in methods or path.endswith("events"):
            continue
        names = [parameter["name"] for parameter in methods["get"]["parameters"]]
        answer = client(served).get(path, params={name: values.get(name, "1") for name in names})
        assert answer.status_code == 200, (path, answer.text)


def test_probes_answer_without_token_on_their_own(paged: Start, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("secret") / "token"
    secret.write_text("a-token-of-some-length")
    collector = paged(token_file=secret, health="127.0.0.1:0")
    probes = collector.service.site.probes
    assert get(f"{probes.url}healthz").json() == {"status": "ok"}
    assert get(f"{probes.url}readyz").status_code == 200
    assert get(f"{probes.url}api/v1/models").status_code == 404
    assert "zmon_streams 0.0" in get(f"{probes.url}metrics").text
    assert get(f"{collector.service.site.url}metrics").status_code == 401
    collector.service.site.ready = False
    assert get(f"{probes.url}readyz").status_code == 503
