"""docs/wire.md tells the truth: its bytes are read back, and the client it shows is served without zmon."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgpack
import numpy as np
import pytest

from tests import wire_page
from tests.support.collectors import Collector
from tests.support.waiting import until
from zmon._wire import control
from zmon._wire import frames as wire

ARRAYS = ("probabilities", "labels", "segments", "segment values")
TEXT = wire_page.PAGE.read_text()
BYTES = {name: wire_page.undump(block) for name, block in wire_page.blocks(TEXT).items()}


def test_every_mark_has_its_bytes() -> None:
    assert wire_page.frames() == BYTES, "run `make docs`"
    assert wire_page.page() == TEXT


def test_the_bytes_are_messages() -> None:
    """As printed: a release that no longer reads them breaks every publisher that is out there."""
    schema = wire.decode([BYTES["topic"], BYTES["schema header"], BYTES["schema body"]])
    decoded = wire.decode_schema(schema.body, schema.schema)
    assert (schema.topic.model, schema.topic.version, schema.topic.agent_id) == ("fraud", "2", "pod/1")
    assert (decoded.classes, decoded.features, dict(decoded.tags)) == (("ok", "fraud"), ("amount",), {"zone": "eu"})
    batch = wire.decode([BYTES["topic"], BYTES["batch header"], *(BYTES[name] for name in ARRAYS)])
    assert (batch.first, batch.rows, batch.base, batch.schema) == (41, 2, 40, schema.schema)
    np.testing.assert_array_equal(batch.columns["probabilities"], [[0.9, 0.1], [0.25, 0.75]])
    assert batch.columns["labels"].tolist() == [0, -1]
    assert batch.columns["segments"].tolist() == [[0], [-1]]
    assert batch.dictionaries["segments"][0][0] == "de"
    hello = control.decode_greeting(BYTES["hello"])
    assert (hello.kind, hello.base, hello.acked, hello.issued) == ("hello", 40, 39, 42)
    assert hello.store == control.decode_ack(BYTES["ack"]).store == wire_page.STORE
    ack = control.decode_ack(BYTES["ack"])
    assert (ack.row, ack.window, ack.need) == (42, 65_536, b"")
    assert ack.refused == {"label_unknown": (2, "class 'maybe'")}
    labels = wire.decode([BYTES["topic"], BYTES["labels header"], BYTES["ids"], BYTES["late labels"]])
    assert (labels.kind, labels.first, labels.columns["ids"].tolist()) == ("labels", 43, [b"tx-1", b"tx-2"])
    assert control.decode_ack(BYTES["ack that needs a schema"]).need == schema.schema
    assert control.decode_ack(BYTES["decline"]).declined == wire_page.STREAM
    assert control.decode_greeting(BYTES["bye"]).kind == "bye"
    assert ack.message_bytes == 16 * 2**20
    assert ack.degraded == {"schema_conflict": (7, "feature 'amount' is text, not numeric")}


@pytest.mark.parametrize(
    ("block", "title"),
    [("schema header", "### A schema"), ("schema body", "The body is"), ("batch header", "### A batch"),
     ("hello", "The publisher greets"), ("ack", "The collector answers")],
)  # fmt: skip
def test_the_tables_name_every_key(block: str, title: str) -> None:
    table = TEXT.partition(title)[2].partition("|---|---|\n")[2].partition("\n\n")[0]
    assert re.findall(r"^\| (\w+) \|", table, re.M) == list(msgpack.unpackb(BYTES[block]))


# --- a client without zmon ------------------------------------------------------------------------------------------

CLIENT = re.findall(r"```python\n(.*?)```", TEXT, re.S)[-1]
NO_ZMON = "import sys\nsys.modules['zmon'] = None  # importing it raises\n"


def run(folder: Path, script: str, *arguments: str) -> None:
    path = folder / "client.py"
    path.write_text(NO_ZMON + script)
    done = subprocess.run(
        [sys.executable, str(path), *arguments], capture_output=True, text=True, timeout=40, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr


def test_the_client_of_the_page_is_served(collect: Callable[..., Collector], tmp_path: Path) -> None:
    collector = collect()
    run(tmp_path, CLIENT, collector.data, "20")
    count = collector.service.telemetry
    until(lambda: count.get("rows") + count.get("lost") >= 1, what="rows")
    collector.stop()
    rows = collector.counts("buffer_count", model="plain", agent_id="client-1")
    assert rows == count.get("rows") == 20 - count.get("rejected_messages", "schema_unknown")
    assert rows >= 10


CUT = """
import hashlib, os, struct, sys
import msgpack, zmq

topic = b"z1/" + hashlib.blake2b(b"plain", digest_size=1).hexdigest().encode() + b"/plain//c/"
stream = os.urandom(16)
body = msgpack.packb({"task": "classification", "classes": ["a", "b"], "features": [], "kinds": []})
schema = hashlib.blake2b(body, digest_size=8).digest()
context = zmq.Context()
socket = context.socket(zmq.XPUB)  # a PUB that tells when it is subscribed to: here every message must arrive
socket.connect(sys.argv[1])
assert socket.poll(20_000) and socket.recv()[:1] == b"\\x01"

def batch(first, rows):
    header = {"v": 1, "kind": "batch", "stream": stream, "first": first, "rows": rows, "base": first,
              "ts": 10**18, "schema": schema, "arrays": [["probabilities", "<f8", [rows, 2]]]}
    socket.send_multipart([topic, msgpack.packb(header), struct.pack(f"<{2 * rows}d", *[0.25, 0.75] * rows)])

socket.send_multipart([topic, msgpack.packb({"v": 1, "kind": "schema", "stream": stream, "schema": schema}), body])
batch(1, 10)
batch(11, 5)
batch(11, 5)    # twice
batch(23, 4)    # 16 … 22 never came
batch(20, 5)    # late: the collector has moved on
batch(27, 1)
batch(1027, 3)  # 28 … 1026 never came
socket.close(linger=2000)
context.term()
"""


def test_a_plain_client_is_served_at_most_once_with_gaps_counted(
    collect: Callable[..., Collector], tmp_path: Path
) -> None:
    collector = collect()
    run(tmp_path, CUT, collector.data)
    until(lambda: collector.service.telemetry.get("rows") == 10 + 5 + 4 + 1 + 3, what="23 rows")
    collector.stop()
    assert collector.counts("buffer_count", agent_id="c") == 23
    assert collector.counts("rows_lost", agent_id="c") == 7 + 999
    assert 23 + 7 + 999 == 1029, "issued = in points + lost"


ACKNOWLEDGED = """
import hashlib, os, struct, sys, time
import msgpack, zmq

topic = b"z1/" + hashlib.blake2b(b"plain", digest_size=1).hexdigest().encode() + b"/plain//c/"
stream = os.urandom(16)
body = msgpack.packb({"task": "classification", "classes": ["a", "b"], "features": [], "kinds": []})
schema = hashlib.blake2b(body, digest_size=8).digest()
context = zmq.Context()
data, control = context.socket(zmq.XPUB), context.socket(zmq.DEALER)
data.connect(sys.argv[1])
control.connect(sys.argv[2])
assert data.poll(60_000) and topic.startswith(data.recv()[1:])
acked, store, counted = 0, b"", None


def send(kind, first, rows, arrays, buffers, **more):
    header = {"v": 1, "kind": kind, "stream": stream, "first": first, "rows": rows, "base": 1, "ts": time.time_ns(),
              "schema": schema, "arrays": arrays, **more}
    data.send_multipart([topic, msgpack.packb(header), *buffers])


def greet(kind, issued):
    control.send(msgpack.packb({"v": 1, "kind": kind, "topic": topic, "stream": stream, "base": 1, "acked": acked,
                                "issued": issued, "clock": time.time_ns(), "tally": {}, "store": store}))


def answer():
    global acked, store
    assert control.poll(60_000), "no answer"
    ack = msgpack.unpackb(control.recv())
    if ack.get("declined"):
        return ack
    assert ack["stream"] == stream and ack["row"] >= acked
    acked, store = ack["row"], ack["store"]
    return ack


def until(row):
    while True:
        ack = answer()
        if ack["row"] >= row:
            return ack


greet("hello", 0)
ack = answer()
assert ack["row"] == 0 and ack["window"] > 0 and ack["message_bytes"] == 16 * 2**20
batch = [["probabilities", "<f8", [2, 2]], ["ids", "|S2", [2]]], [struct.pack("<4d", 0.9, 0.1, 0.2, 0.8), b"i1i2"]
send("batch", 1, 2, *batch)
ack = answer()
assert ack["row"] == 0 and ack["need"] == schema
data.send_multipart([topic, msgpack.packb({"v": 1, "kind": "schema", "stream": stream, "schema": schema}), body])
send("batch", 1, 2, *batch)
until(2)
send("labels", 3, 3, [["ids", "|S2", [3]], ["labels", "<i4", [3]]], [b"i1i2i1", struct.pack("<3i", 0, 0, -1)])
ack = until(5)
assert ack["refused"]["label_missing"][0] == 1, ack
send("batch", 6, 1, [["probabilities", "<f8", [1, 2]]], [struct.pack("<2d", 7.0, 0.5)])
ack = until(6)
assert ack["refused"]["probabilities_range"][0] == 1 and ack["refused"]["probabilities_range"][1], ack
send("batch", 7, 4, [], [], withheld=2**30)
ack = until(10)
assert ack["refused"]["message_bytes"][0] == 4, ack
greet("bye", 10)
until(10)
topic = b"z1/" + hashlib.blake2b(b"other", digest_size=1).hexdigest().encode() + b"/other//c/"
acked, store, stream = 0, b"", os.urandom(16)
greet("hello", 0)
assert answer()["declined"] == stream
data.close(0)
control.close(1000)
context.term()
"""


def test_a_plain_client_with_acknowledgements_and_labels_is_served(
    collect: Callable[..., Collector], tmp_path: Path
) -> None:
    """Everything that it knows is on the page: hello, need, labels, refusals, a batch withheld, goodbye, a decline."""
    collector = collect(models=("plain",))
    run(tmp_path, ACKNOWLEDGED, collector.data, collector.control)
    collector.stop()
    assert collector.counts("buffer_count", agent_id="c") == 2
    assert collector.counts("rows_rejected", agent_id="c") == 6
    assert collector.counts("late_label_count", agent_id="c") == 2
