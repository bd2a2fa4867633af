"""Types what the quick start says, in an empty folder: its shell lines, its Python, and looks for what it promises.

Usage: quickstart.py PAGE. The installation is left out: this interpreter's is used. Where somebody listens at the
default port already, both sides are told another one.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from zmon_collector.admin import ask

CHARTS = {"classes", "confidence", "movement"}
WEB = 8787


def main(page: str) -> None:
    blocks = re.findall(r"```(sh|python)\n(.*?)```", page, re.S)
    install, collect, *python, look = blocks
    assert "pip install" in install[1], install
    assert [kind for kind, _ in blocks] == ["sh", "sh", "python", "python", "sh"]
    five = [line for line in python[-1][1].splitlines() if line]
    assert len(five) == 5, f"five lines are promised, not {len(five)}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    port, elsewhere = 5757, ""
    while _listens(port) or _listens(port + 1):
        port += 10
        elsewhere = f" --bind tcp://127.0.0.1:{port}"
        environment["ZMON_COLLECTOR"] = f"tcp://127.0.0.1:{port}"
    taken = _listens(WEB)
    with tempfile.TemporaryDirectory() as folder:
        options = {"cwd": folder, "env": environment, "text": True}
        terminal = subprocess.Popen(["bash", "-c", f"exec {collect[1].strip()}{elsewhere}"], **options)
        try:
            until = time.monotonic() + 60
            while not _listens(port) and time.monotonic() < until:
                assert terminal.poll() is None, "the collector ended"
                time.sleep(0.1)
            typed = "".join(code for _, code in python)
            subprocess.run([sys.executable, "-"], input=typed, check=True, timeout=120, **options)
            shown = ""
            until = time.monotonic() + 60
            while "max_prediction_proba" not in shown and time.monotonic() < until:
                time.sleep(0.2)
                shown = subprocess.run(["bash", "-c", look[1]], check=False, capture_output=True, **options).stdout
            charts = first_charts(Path(folder, "zmon-data"), page, taken=taken or _listens(WEB))
        finally:
            terminal.send_signal(signal.SIGTERM)
            terminal.wait(30)
    for promised in ('"mean"', '"class_name":"0"', '"class_name":"2"'):
        assert promised in shown, (promised, shown)
    assert charts >= CHARTS, charts
    sys.stdout.write("the quick start does what it says\n")


def first_charts(data: Path, page: str, *, taken: bool) -> set[str]:
    """What the live page draws of the model."""
    web = ask(data, "health", 10.0)["web"]
    assert "http://127.0.0.1:8787/" in page and (web == f"http://127.0.0.1:{WEB}/" or taken), web
    until = time.monotonic() + 30
    drawn: set[str] = set()
    while not drawn >= CHARTS and time.monotonic() < until:
        with urllib.request.urlopen(f"{web}api/v1/view?view=model&model=wine&range=1h", timeout=10) as answer:
            panels = json.load(answer).get("panels", [])
        drawn = {panel["id"] for panel in panels if panel["figure"]}
        time.sleep(0.2)
    return drawn


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]).read_text())
