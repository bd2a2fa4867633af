"""Run the demonstration: start the collector and the replicas, follow the files, summarise them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from zmon.errors import ConfigurationError
from zmon_collector.admin import ask
from zmon_collector.config.toml import toml
from zmon_collector.jobs.demo import show
from zmon_collector.jobs.demo.verdict import WindowView, changed_windows, read_window

PERIOD = 2  # seconds
REPLICAS = ("replica-1", "replica-2")
START_WAIT = 60.0  # seconds; a loaded machine needs long to import scikit-learn
CLOSE_WAIT = 30.0
LOOK_EVERY = 0.25
KEPT = 1000  # windows kept in memory


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """Number of windows, and those (by number, from 0) in which the inputs are inverted.

    `replay` serves a history that ends now, as fast as possible. `endless` repeats the windows until interrupted.
    """

    windows: int
    inverted: range
    replay: bool = False
    endless: bool = False

    @staticmethod
    def of(duration: float) -> DemoPlan:
        """Return 12 quiet windows, 10 inverted and 8 quiet ones a minute; the same shares for other durations."""
        windows = int(duration // PERIOD)
        if windows < 6:
            raise ConfigurationError(f"--duration of {duration:g} s is too short to show anything; give at least 12s")
        start = round(windows * 0.4)
        return DemoPlan(windows, range(start, start + round(windows / 3)))


def run_demo(
    plan: DemoPlan, data_dir: Path | None = None, console: Console | None = None, *, browser: bool = False
) -> bool:
    """Run the demonstration, and return whether everything that was served arrived and was shown."""
    console = console or Console()
    folder = data_dir or Path("zmon-data") / f"demo-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    console.print(f"Training two replicas of a digits classifier; files go to [bold]{folder / 'anodot'}[/bold]")
    with contextlib.ExitStack() as stack:
        collector = stack.enter_context(_collector(folder))
        replicas = [stack.enter_context(_replica(agent, seed)) for seed, agent in enumerate(REPLICAS)]
        endpoints = _endpoints(folder, collector)
        if endpoints["web"]:
            console.print(f"Live page: [bold]{endpoints['web']}[/bold]")
        for replica in replicas:
            if replica.stdout is None or replica.stdout.readline().strip() != "ready":
                raise ConfigurationError("a replica of the demonstration did not start; its error is printed above")
        start = _send_plan(plan, replicas, endpoints)
        inverted = plan.inverted
        if inverted:
            first, last = (start + i * PERIOD for i in (inverted.start, inverted.stop))
            times = f"{show.clock(WindowView(first))} to {show.clock(WindowView(last))}"
            console.print(f"{plan.windows} windows of {PERIOD} s; pixels are inverted from {times}")
        if plan.endless:
            console.print("This repeats until Ctrl-C.")
        if browser and endpoints["web"]:
            _open(endpoints["web"])
        served = _serve(folder, plan, console, replicas)
        collector.terminate()
        collector.wait(CLOSE_WAIT)
        views = [read_window(path) for path in _files(folder / "anodot")]
    show.summary(console, views, changed_windows(views))
    console.print(f"{len(views)} files in {folder / 'anodot'}, one JSON sample per line; the log is {folder / 'log'}")
    return served and (plan.endless or len(views) == plan.windows)


def _serve(folder: Path, plan: DemoPlan, console: Console, replicas: list[subprocess.Popen[str]]) -> bool:
    """Show windows until all are served or Ctrl-C, and return whether the replicas succeeded."""
    try:
        _follow(folder / "anodot", plan, console, replicas)
        return all(replica.wait(CLOSE_WAIT) == 0 for replica in replicas)
    except KeyboardInterrupt:
        console.print()
        for replica in replicas:
            replica.terminate()
        return all(replica.wait(CLOSE_WAIT) in (0, -signal.SIGTERM) for replica in replicas)


def _open(page: str) -> None:
    """Open the page where there is a display; elsewhere the printed address has to do."""
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(page)


@contextlib.contextmanager
def _process(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    # A process group of its own: Ctrl-C reaches only the demonstration, which then ends its processes in order.
    with subprocess.Popen([sys.executable, "-m", *command], text=True, process_group=0, **options) as process:
        try:
            yield process
        finally:  # signals to a process that has ended do nothing
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(CLOSE_WAIT)
            process.kill()


@contextlib.contextmanager
def _collector(folder: Path) -> Iterator[subprocess.Popen[str]]:
    from zmon_collector.jobs.demo.replica import Traffic  # imported here because scikit-learn takes a second

    config = folder / "zmon.toml"
    reference = folder / "digits.zmon"
    Traffic(0).reference().save(reference)
    config.write_text(
        f'[metrics]\npreset = "full"\n\n[models.digits]\nreference = {toml(str(reference))}\n', encoding="utf-8"
    )
    options = (f"--config={config}", "--bind=tcp://127.0.0.1:0", f"--window={PERIOD}s", f"--data-dir={folder}")
    with (
        (folder / "log").open("w", encoding="utf-8") as log,
        _process("zmon_collector", "collect", *options, "--flush-on-exit", stderr=log) as process,
    ):
        yield process


def _replica(agent: str, seed: int) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return _process("zmon_collector.jobs.demo.replica", agent, str(seed), stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _endpoints(folder: Path, collector: subprocess.Popen[str]) -> dict[str, str]:
    until = time.monotonic() + START_WAIT
    while time.monotonic() < until and collector.poll() is None:
        health = ask(folder, "health")
        if health is not None:
            return {name: health[name] for name in ("data", "control", "web")}
        time.sleep(LOOK_EVERY)
    raise ConfigurationError(f"the collector of the demonstration did not start; see {folder / 'log'}")


def _send_plan(plan: DemoPlan, replicas: list[subprocess.Popen[str]], endpoints: dict[str, str]) -> int:
    """Send the plan to every replica, and return the start of the first window."""
    now = int(time.time() // PERIOD) * PERIOD
    start = now - plan.windows * PERIOD if plan.replay else now + PERIOD
    message = {
        **endpoints,
        "start": start,
        "end": None if plan.endless else start + plan.windows * PERIOD,
        "cycle": plan.windows,
        "period": PERIOD,
        "inverted": list(plan.inverted),
        "replay": plan.replay,
    }
    for replica in replicas:
        if replica.stdin is not None:
            replica.stdin.write(json.dumps(message) + "\n")
            replica.stdin.flush()
    return start


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def _follow(folder: Path, plan: DemoPlan, console: Console, replicas: list[subprocess.Popen[str]]) -> None:
    """Show windows as their files appear, until all are there, or until the replicas have ended and none follows."""
    views: list[WindowView] = []
    seen: set[Path] = set()
    quiet_since: float | None = None
    total = 0 if plan.endless else plan.windows
    live = Live(show.table(views, total), console=console) if console.is_terminal else None
    with live or contextlib.nullcontext():
        while plan.endless or len(seen) < plan.windows:
            for path in _files(folder):
                if path not in seen:
                    seen.add(path)
                    views.append(read_window(path))
                    del views[:-KEPT]
                    if live is not None:
                        live.update(show.table(views, total))
                    else:
                        console.print(show.line(views[-1]), markup=False)
                    quiet_since = None
            if all(replica.poll() is not None for replica in replicas):
                quiet_since = quiet_since or time.monotonic()
                if time.monotonic() - quiet_since > CLOSE_WAIT / 2:
                    break
            time.sleep(LOOK_EVERY)
