"""A strict stand-in for Anodot's API: real HTTP on port 0, every rule enforced, what it took recorded, faults at will.

Its rules are written from the vendor's page, not from the project's validator.
"""

from __future__ import annotations

import base64
import json
import math
import random
import re
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Sample = dict[str, Any]
Errors = list[tuple[int, str, str]]  # index, code, description

ACCESS_KEY = "acc3ss-k3y-of-the-account"
TOKEN = "s3cr3t-d4ta-c0llection-key"
SHAPES = ("text", "number", "no_index", "plain", "list")
UNANSWERED = {"hang_accepted", "reset_answer", "trickle_forever", "half_json"}  # accepted, and no whole answer
REFUSING = {"refuse", "hang", "reset", "429", "429_date", "408", "425", "500", "502", "503", "html", "expired",
            "forbidden", "inactive", "busy"}  # nothing accepted  # fmt: skip
ANSWERED = {"ok", "trickle", "throttle", "empty", "bad_request", *SHAPES}
FAULTS = tuple(sorted((UNANSWERED | REFUSING | ANSWERED) - {"ok"}))


@dataclass
class Exchange:
    """One request and what became of it."""

    fault: str
    samples: list[Sample]
    accepted: int = 0
    answered: bool = False
    at: float = field(default_factory=time.monotonic)


def verdict(sample: Any, now: float) -> tuple[str, str] | None:
    """The code and description of the first rule that a sample breaks."""
    if not isinstance(sample, dict) or not sample.get("properties"):
        return "2004", "no properties"
    properties, tags = sample["properties"], sample.get("tags") or {}
    if len(properties) > 20:
        return "2005", "too many properties"
    if "what" not in properties:
        return "2012", "no what"
    for key, value in properties.items():
        value = str(value) if isinstance(value, int) else value
        for text, limit, empty, long, illegal in (
            (key, 50, "2006", "2007", "2010"),
            (value, 150, "2008", "2009", "2011"),
        ):
            if not isinstance(text, str) or text == "":
                return empty, f"empty under {key}"
            if len(text) > limit:
                return long, f"too long under {key}"
            if re.search(r"[.= \t\n\r]", text):
                return illegal, f"illegal character under {key}"
    if properties.get("target_type", "gauge") not in ("gauge", "counter"):
        return "2030", "target type"
    if len(tags) > 40:
        return "2013", "too many tags"
    for key, values in tags.items():
        if not isinstance(values, list) or not all(isinstance(each, str) and 1 <= len(each) <= 150 for each in values):
            return "2019", f"tag {key}"
    timestamp, value = sample.get("timestamp"), sample.get("value")
    if timestamp is None:
        return "2020", "no timestamp"
    if type(timestamp) is not int:
        return "2021", "timestamp"
    if timestamp < 0 or timestamp > now + 3600:
        return ("2023", "negative") if timestamp < 0 else ("2022", "in the future")
    if value is None:
        return "2024", "no value"
    if type(value) not in (int, float):
        return "2025", "not a number"
    return None if math.isfinite(value) else ("2026", "NaN or infinite")


class StandIn:
    """The server. `faults` are used up one a request, then `choose` is asked; ``"ok"`` is none.

    Parameters
    ----------
    refuses : callable, optional
        A rule beside the documented ones: the code and description for a sample it does not like.
    requests_per_second, samples_per_second : float
        The account's quota over any second; beyond it 429.
    """

    def __init__(
        self,
        *,
        token: str = TOKEN,
        refuses: Callable[[Sample], tuple[str, str] | None] = lambda sample: None,
        choose: Callable[[], str] = lambda: "ok",
        requests_per_second: float = math.inf,
        samples_per_second: float = math.inf,
        seed: int = 0,
    ) -> None:
        self.token = token
        self.refuses = refuses
        self.choose = choose
        self.faults: deque[str] = deque()
        self.retry_after = 1
        self.accepted: list[Sample] = []
        self.refused: list[tuple[Sample, str]] = []
        self.exchanges: list[Exchange] = []
        self.out_of_order: list[Sample] = []
        self.connections = 0
        self.access_key = ACCESS_KEY
        self.bearer_lasts = 3600.0
        self.bearers: dict[str, float] = {}  # until when
        self.schemas: dict[str, dict[str, Any]] = {}
        self.watermarks: dict[str, int] = {}
        self.chance = random.Random(seed)
        self.quota = (requests_per_second, samples_per_second)
        self._newest: dict[Any, int] = {}
        self._lock = threading.Lock()
        self.released = threading.Event()
        self._port = 0
        self.up()

    # --- life --------------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Listen (again, on the same port)."""
        stand_in = self

        class Handler(_Handler):
            owner = stand_in

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that has gone is no news."""

        self.released.clear()
        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def down(self) -> None:
        """Refuse connections until `up`."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    close = down

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    # --- what it saw -------------------------------------------------------------------------------------------------

    def keys(self) -> list[Any]:
        """The accepted samples as (identity, time, value), in order."""
        return [key(sample) for sample in self.accepted]

    def unanswered(self) -> int:
        """Samples in requests that were accepted and not answered: the only ones that may come twice."""
        return sum(each.accepted for each in self.exchanges if not each.answered)

    # --- deciding ----------------------------------------------------------------------------------------------------

    def next_fault(self) -> str:
        with self._lock:
            return self.faults.popleft() if self.faults else self.choose()

    def issue(self) -> str:
        """A bearer token, as the API gives it: quoted by being JSON."""
        ends = time.time() + self.bearer_lasts
        claims = base64.urlsafe_b64encode(json.dumps({"exp": int(ends), "n": len(self.bearers)}).encode())
        bearer = f"e30.{claims.decode().rstrip('=')}.signature"
        self.bearers[bearer] = ends
        return bearer

    def over_quota(self, samples: int) -> bool:
        with self._lock:
            recent = [each for each in self.exchanges if each.at > time.monotonic() - 1.0]
            return len(recent) >= self.quota[0] or sum(len(each.samples) for each in recent) + samples > self.quota[1]

    def verdict3(self, sample: Sample) -> tuple[str, str] | None:
        """The rules of protocol 3.0 for a sample."""
        schema = self.schemas.get(sample.get("schemaId", ""))
        if schema is None:
            return "2004", "no such schema"
        if not set(sample["dimensions"]) <= set(schema["dimensions"]):
            return "2010", "no such dimension"
        if not set(sample["measurements"]) <= set(schema["measurements"]) or not sample["measurements"]:
            return "2012", "no such measurement"
        if sample["timestamp"] < self.watermarks.get(sample["schemaId"], 0):
            return "2021", "before the watermark"
        (value,) = sample["measurements"].values()
        as2 = {"properties": {"what": "w", **sample["dimensions"]}, "tags": sample.get("tags"), "value": value}
        return verdict({**as2, "timestamp": sample["timestamp"]}, time.time())

    def create(self, wanted: Any) -> tuple[int, Any]:
        """A schema, if the rules allow it."""
        good = (
            isinstance(wanted, dict)
            and 1 <= len(wanted["name"]) <= 200
            and len(wanted["dimensions"]) <= 30
            and all(1 <= len(name) <= 30 for name in wanted["dimensions"])
            and 1 <= len(wanted["measurements"]) <= 200
            and all(
                each["aggregation"] in ("average", "sum") and each["countBy"] == "none"
                for each in wanted["measurements"].values()
            )
            and wanted["missingDimPolicy"]["action"] in ("fill", "fail", "ignore")
            and wanted["name"] not in [each["name"] for each in self.schemas.values()]
        )
        if not good:
            return 400, {"message": "not a schema"}
        made = {**wanted, "id": f"schema-{len(self.schemas)}"}
        self.schemas[made["id"]] = made
        return 200, {"schema": made}

    def judge(self, samples: list[Sample], *, throttle: bool = False, all_or_none: bool = False) -> tuple[Errors, int]:
        """Take the valid samples; what is wrong with the others, and how many were taken."""
        now = time.time()
        errors: Errors = []
        taken = []
        for index, sample in enumerate(samples):
            found = (self.verdict3(sample) if "schemaId" in sample else verdict(sample, now)) or self.refuses(sample)
            if found is not None:
                errors.append((index, *found))
            elif throttle and self.chance.random() < 0.3:
                errors.append((index, self.chance.choice(["1004", "2002", "2003"]), "slow down"))
            else:
                taken.append(sample)
        if all_or_none and errors:
            taken = []
        with self._lock:
            for sample in taken:
                name = identity(sample)
                if self._newest.get(name, -1) > sample["timestamp"]:
                    self.out_of_order.append(sample)
                self._newest[name] = max(self._newest.get(name, -1), sample["timestamp"])
            self.accepted += taken
            self.refused += [
                (samples[index], code) for index, code, _ in errors if code not in ("1004", "2002", "2003")
            ]
        return errors, len(taken)


class _Handler(BaseHTTPRequestHandler):
    owner: StandIn
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.owner.connections += 1

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        length = int(self.headers.get("Content-Length", 0))
        fault = self.owner.next_fault()
        if fault == "refuse":
            return self.abort()
        if fault == "reset":
            self.rfile.read(length // 2)
            return self.abort()
        body = self.rfile.read(length)
        if fault in REFUSING and address.path != "/api/v1/metrics":
            return self.play(fault, [], Exchange(fault, []))
        if address.path == "/api/v2/access-token":
            if json.loads(body).get("refreshToken") != self.owner.access_key:
                return self.answer(401, {"message": f"who is {body.decode()}?"})
            return self.answer(200, self.owner.issue())
        if address.path == "/api/v2/stream-schemas":
            if not self.is_authorised():
                return self.answer(401, {"message": f"who is {self.headers.get('Authorization')}?"})
            return self.answer(*self.owner.create(json.loads(body)))
        if address.path not in ("/api/v1/metrics", "/api/v1/metrics/watermark"):
            return self.answer(404, {"message": "no such page"})
        if query.get("protocol") not in (["anodot20"], ["anodot30"]):
            return self.answer(400, {"errors": [{"error": "2029", "description": "protocol"}]})
        if query.get("token") != [self.owner.token]:
            return self.answer(401, {"errors": [{"error": "2001", "description": "token"}]})
        if address.path.endswith("watermark"):
            mark = json.loads(body)
            assert self.owner.watermarks.get(mark["schemaId"], 0) <= mark["watermark"]
            self.owner.watermarks[mark["schemaId"]] = mark["watermark"]
            return self.answer(200, None)
        if "application/json" not in self.headers.get("Content-Type", ""):
            return self.answer(415, {"message": "no JSON"})
        try:
            samples = json.loads(body)
            assert isinstance(samples, list)
            assert 1 <= len(samples) <= 1000
        except (ValueError, AssertionError):
            return self.answer(400, {"errors": [{"error": "1001", "description": "JSON"}]})
        over = self.owner.over_quota(len(samples))
        exchange = Exchange(fault, samples)
        self.owner.exchanges.append(exchange)
        if over:
            return self.answer(429, {"errors": [{"error": "1004", "description": "rate"}]}, {"Retry-After": "1"})
        try:
            return self.play(fault, samples, exchange)
        except OSError:
            exchange.answered = False
            raise

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path != "/api/v2/stream-schemas/schemas":
            return self.answer(404, {"message": "no such page"})
        if not self.is_authorised():
            return self.answer(401, {"message": "bearer"})
        found = [{"streamSchemaWrapper": {"schema": each}} for each in self.owner.schemas.values()]
        return self.answer(200, found)

    def is_authorised(self) -> bool:
        """Whether the request carries a bearer token that still holds."""
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return self.owner.bearers.get(bearer, 0.0) > time.time()

    def play(self, fault: str, samples: list[Sample], exchange: Exchange) -> None:
        owner = self.owner
        after = str(owner.retry_after)
        if fault == "hang":
            owner.released.wait(60)
            return self.abort()
        if fault in ("500", "502", "503", "408", "425"):
            return self.answer(int(fault), {"message": "not now"})
        if fault == "429":
            return self.answer(429, None, {"Retry-After": after})
        if fault == "429_date":
            when = format_datetime(datetime.fromtimestamp(time.time() + owner.retry_after, UTC), usegmt=True)
            return self.answer(429, None, {"Retry-After": when})
        if fault in ("expired", "forbidden"):
            return self.answer(401 if fault == "expired" else 403, {"message": "token"})
        if fault == "inactive":
            return self.answer(200, {"errors": [{"error": "2001", "description": "token inactive"}]})
        if fault == "busy":
            return self.answer(200, {"errors": [{"error": 2002, "description": "too many concurrent requests"}]})
        if fault == "html":
            return self.answer(200, "<html>Please sign in</html>")
        errors, exchange.accepted = owner.judge(
            samples, throttle=fault == "throttle", all_or_none=fault == "bad_request"
        )
        if fault == "hang_accepted":
            owner.released.wait(60)
            return self.abort()
        exchange.answered = fault not in UNANSWERED  # before the bytes: the client may be quicker than this thread
        if fault == "bad_request" and errors:
            return self.answer(400, shaped(errors, "text"))
        if fault == "half_json":
            return self.answer(200, json.dumps(shaped(errors, "text"))[:-3] or "{")
        if fault == "empty" and not errors:
            return self.answer(200, "")
        return self.answer(200, shaped(errors, fault), speed=fault)

    def answer(self, status: int, body: Any, headers: Any = None, speed: str = "") -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode() if body is not None else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        if speed == "reset_answer":
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            return self.abort()
        if speed == "trickle_forever":
            self.flush_headers()
            while not self.owner.released.wait(0.05):
                self.wfile.write(b"X-More: 1\r\n" if self.owner.chance.random() < 0.5 else b"X")
            return self.abort()
        self.end_headers()
        if speed == "trickle":
            for byte in data:
                self.wfile.write(bytes([byte]))
                time.sleep(0.002)
            return None
        self.wfile.write(data)
        return None

    def abort(self) -> None:
        """Reset the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()


def shaped(errors: Iterable[tuple[int, str, str]], shape: str) -> Any:
    """The errors in one of the shapes that the API has been seen to use."""
    errors = list(errors)
    if shape == "number":
        return {"errors": [{"index": i, "error": int(code), "description": text} for i, code, text in errors]}
    if shape == "no_index":
        return {"errors": [{"error": code, "description": text} for _, code, text in errors]}
    if shape == "plain":
        return {"errors": [f"error {code} at index {i}: {text}" for i, code, text in errors]}
    if shape == "list":
        return [{"index": str(i), "error": code} for i, code, _ in errors]
    if not errors:
        return {}
    return {"errors": [{"index": str(i), "error": code, "description": text} for i, code, text in errors]}


def identity(sample: Sample) -> Any:
    return tuple(sorted((sample.get("properties") or {**sample["dimensions"], "": sample["schemaId"]}).items()))


def key(sample: Sample) -> Any:
    return identity(sample), sample["timestamp"], sample.get("value", str(sample.get("measurements")))
