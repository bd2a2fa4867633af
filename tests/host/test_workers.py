"""Workers of task queues and pools end in ways of their own: their rows are delivered at their end all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.host.conftest import Start
from tests.support.collectors import Collector, delivered
from tests.support.frameworks import require
from tests.support.processes import ROOT, environment
from tests.support.waiting import until

APP = """
import os
import numpy as np
import zmon
from celery import Celery

queue = os.environ["QUEUE"]
app = Celery("app", broker="filesystem://")
app.conf.update(
    broker_transport_options={name: queue for name in ("data_folder_in", "data_folder_out", "control_folder")},
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
)

def publisher():
    return zmon.Publisher("m", classes=2, collector=os.environ["COLLECTOR"], agent_id="host")

def done(number):
    open(os.path.join(os.environ["DONE"], str(number)), "w").close()

shared = publisher()

@app.task
def serve(number):
    shared.publish(np.full(1, 0.9), ids=[number])
    done(number)

@app.task
def alone(number):
    publisher().publish(np.full(1, 0.9), ids=[number])
    done(number)

@app.task(soft_time_limit=1, max_retries=0)
def slow(number):
    shared.publish(np.full(1, 0.9), ids=[number])
    done(number)
    while True:
        shared.publish([])
"""
ROWS = 60


def celery(folder: Path, collector: Collector, task: str, *arguments: str) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a worker on a queue in the folder, with tasks in it: sixty, or four that do not end by themselves."""
    (folder / "app.py").write_text(APP)
    done = folder / "done"
    for path in (folder / "queue", done):
        path.mkdir()
    variables = {
        **environment(ROOT), "QUEUE": str(folder / "queue"), "COLLECTOR": collector.data, "DONE": str(done),
        "C_FORCE_ROOT": "1",
    }  # fmt: skip
    variables["PYTHONPATH"] = os.pathsep.join([str(folder), variables["PYTHONPATH"]])
    send = f"import app\nfor number in range({4 if task == 'slow' else ROWS}): app.{task}.delay(number)"
    subprocess.run([sys.executable, "-c", send], check=True, cwd=folder, env=variables, timeout=120)
    with (folder / "log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "app", "worker", "--concurrency", "6", "--without-gossip",
             "--without-mingle", "--without-heartbeat", *arguments],
            stdout=log, stderr=log, cwd=folder, env=variables,
        )  # fmt: skip
    return worker, done


CELERY = {
    "one task a child": ("serve", "--pool", "prefork", "--max-tasks-per-child", "1"),
    "a publisher a task": ("alone", "--pool", "prefork", "--max-tasks-per-child", "1"),
    "seven tasks a child": ("serve", "--pool", "prefork", "--max-tasks-per-child", "7"),
    "children that stay": ("serve", "--pool", "prefork"),
    "threads": ("serve", "--pool", "threads"),
    "in the worker itself": ("serve", "--pool", "solo"),
    "gevent": ("serve", "--pool", "gevent"),
    "eventlet": ("serve", "--pool", "eventlet"),
}


@pytest.mark.parametrize("how", CELERY)
def test_celery(how: str, tmp_path: Path, collector: Collector) -> None:
    require("celery")
    worker, done = celery(tmp_path, collector, *CELERY[how])
    try:
        until(lambda: len(list(done.iterdir())) == ROWS or worker.poll() is not None, what="the tasks to be done")
        worker.send_signal(signal.SIGTERM)  # it ends when its children have
        assert worker.wait(120) == 0, (tmp_path / "log").read_text()
    finally:
        worker.kill()
        worker.wait()
    delivered(collector, ROWS)


def test_celery_with_a_soft_time_limit(tmp_path: Path, collector: Collector) -> None:
    """The limit ends the task, whatever the publisher is doing, and what was published arrives."""
    require("celery")
    worker, done = celery(tmp_path, collector, "slow", "--pool", "prefork", "--max-tasks-per-child", "1")
    log = tmp_path / "log"
    try:
        until(lambda: log.read_text().count("raised unexpected: SoftTimeLimitExceeded") == 4, what="four time limits")
        assert len(list(done.iterdir())) == 4
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(120) == 0, log.read_text()
    finally:
        worker.kill()
        worker.wait()
    delivered(collector, 4)


SERVING = """
import os
import numpy as np
import zmon

def publisher():
    return zmon.Publisher("m", classes=2, collector=os.environ["COLLECTOR"], agent_id="host")

shared = publisher()

def work(number):
    shared.publish(np.full(1, 0.9), ids=[number])
    return number

def alone(number):
    publisher().publish(np.full(1, 0.9), ids=[number])
    return number

def flushed(number):
    shared.publish(np.full(1, 0.9), ids=[number])
    assert shared.flush(60)
    return number
"""
POOL = """
import multiprocessing
import serving

def ended(pool, work, numbers, **options):
    assert sorted(pool.map(work, numbers, **options)) == list(numbers)
    pool.close()
    pool.join()

def run(how, work, numbers):
    if how == "loky":
        from joblib.externals.loky import ProcessPoolExecutor
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(work, numbers))
    elif how.startswith("joblib"):
        from joblib import Parallel, delayed
        Parallel(n_jobs=2, backend=how.split()[1])(delayed(work)(number) for number in numbers)
    elif how == "concurrent.futures":
        from concurrent.futures import ProcessPoolExecutor
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(work, numbers))
    elif how == "concurrent.futures, one a child":
        from concurrent.futures import ProcessPoolExecutor
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
            for number in numbers:  # one by one: with more in its queue, it hangs in Python 3.11
                pool.submit(work, number).result()
    elif how == "multiprocessing, one a child":
        ended(multiprocessing.Pool(2, maxtasksperchild=1), work, numbers, chunksize=1)
    elif how == "billiard":
        import billiard
        children = [billiard.Process(target=work, args=(number,)) for number in numbers]
        for child in children:
            child.start()
        for child in children:
            child.join()
    elif how == "billiard pool":
        import billiard.pool
        flush = {"on_process_exit": lambda *_: serving.shared.flush(60)}
        ended(billiard.pool.Pool(2, maxtasksperchild=10, **flush), work, numbers, chunksize=1)

if __name__ == "__main__":
    run(sys.argv[2], getattr(serving, sys.argv[3]), range(int(sys.argv[4])))
    report()
"""
POOLS = [
    "loky", "joblib loky", "joblib threading", "concurrent.futures", "concurrent.futures, one a child",
    "multiprocessing, one a child", "billiard",
]  # fmt: skip


@pytest.mark.parametrize("task", ["work", "alone"])
@pytest.mark.parametrize("how", POOLS)
def test_pools(how: str, task: str, tmp_path: Path, collector: Collector, child: Start) -> None:
    pooled(how, task, tmp_path, collector, child)


def test_joblib_over_multiprocessing_kills_its_workers_so_a_task_flushes(
    tmp_path: Path, collector: Collector, child: Start
) -> None:
    pooled("joblib multiprocessing", "flushed", tmp_path, collector, child)


def test_a_pool_of_billiard_ends_its_workers_with_one_hook_only(
    tmp_path: Path, collector: Collector, child: Start
) -> None:
    pooled("billiard pool", "work", tmp_path, collector, child)


def pooled(how: str, task: str, folder: Path, collector: Collector, child: Start) -> None:
    """Publish rows from a pool's workers, and see all of them arrive."""
    require("billiard" if "billiard" in how else "joblib")
    (folder / "serving.py").write_text(SERVING)
    rows = 8 if "one a child" in how else 30
    child(collector.data, POOL, how, task, str(rows), COLLECTOR=collector.data).result()
    delivered(collector, rows)
