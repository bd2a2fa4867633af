"""A good publisher in a process of its own: ``python -m tests.hostile.good ENDPOINT OPTIONS``.

It publishes until its standard input says so, flushes, and prints what it issued.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import numpy as np

import zmon

EVERY = 0.02  # seconds between two batches
ROWS = 10  # of a batch
PATIENCE = 60.0  # seconds; the test asserts what it took


def main(endpoint: str, options: dict[str, Any]) -> None:
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), ended.set()), daemon=True).start()
    issued = 0
    with zmon.Publisher("steady", classes=3, collector=endpoint, agent_id="good", **options) as publisher:
        print(json.dumps({"ready": publisher.flush(PATIENCE)}), flush=True)
        while not ended.wait(EVERY):
            publisher.publish(np.full((ROWS, 3), 1 / 3))
            issued += ROWS
        began = time.monotonic()
        flushed = publisher.flush(PATIENCE)
        print(json.dumps({"issued": issued, "flushed": flushed, "seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
