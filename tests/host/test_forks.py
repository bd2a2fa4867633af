"""The publisher's process forks, spawns, and runs many threads or a loop. In real children."""

from __future__ import annotations

import pickle

import pytest

import zmon
from tests.host.conftest import Start
from tests.support.collectors import Collector, delivered

NOBODY = "tcp://127.0.0.1:59996"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_multiprocessing_deliver_without_flush_or_close(
    method: str, collector: Collector, child: Start
) -> None:
    one = child(
        collector.data,
        """
        import multiprocessing
        shared = publisher()  # at import: a spawned child makes its own

        def work(batches):
            for _ in range(batches):
                shared.publish(TEN)

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[2])
            shared.publish(TEN)
            assert shared.flush(60)
            workers = [context.Process(target=work, args=(50,)) for _ in range(3)]
            for worker in workers:
                worker.start()
            shared.publish(TEN)
            for worker in workers:
                worker.join()
            with context.Pool(2) as pool:
                pool.map(work, [5] * 4, chunksize=1)
                pool.close()
                pool.join()
            assert [worker.exitcode for worker in workers] == [0, 0, 0]
        """,
        method,
    )
    one.end()
    assert one.process.returncode == 0, one.said
    delivered(collector, 10 * (2 + 3 * 50 + 4 * 5))


def test_a_preloading_server(collector: Collector, child: Start) -> None:
    """As gunicorn --preload does it: the application, its thread already at work, is loaded before the fork."""
    one = child(
        collector.data,
        """
        shared = publisher()
        shared.publish(TEN)  # a warm-up request
        assert shared.flush(60)

        def serve():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            os.write(1, b"ready\\n")
            threads = [threading.Thread(target=lambda: [shared.publish(TEN) for _ in range(100)]) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            os.write(served, b".")
            while True:
                time.sleep(1)

        workers = []
        done, served = os.pipe()
        for _ in range(3):
            pid = os.fork()
            if not pid:
                serve()
            workers.append(pid)
        while shared.stats.published < 100:  # the master goes on as well
            shared.publish(TEN)
        for _ in workers:
            os.read(done, 1)
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
        print([os.waitpid(pid, 0)[1] for pid in workers])
        """,
    )
    assert one.end().splitlines() == [*["ready"] * 3, "[0, 0, 0]"]
    delivered(collector, 100 + 3 * 4 * 100 * 10)


def test_fork_while_other_threads_publish(collector: Collector, child: Start) -> None:
    one = child(
        collector.data,
        """
        shared = publisher()
        stop = threading.Event()
        counts = []

        def work():
            done = 0
            while not stop.is_set():
                shared.publish(TEN)
                done += 1
                time.sleep(0.0005)
            counts.append(done)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        codes = []
        for _ in range(8):
            pid = os.fork()
            if not pid:
                shared.publish(TEN)
                ok = shared.flush(20)
                shared.close()
                os._exit(0 if ok else 1)
            codes.append(os.waitpid(pid, 0)[1])
        stop.set()
        for thread in threads:
            thread.join()
        assert codes == [0] * 8, codes
        assert shared.flush(60)
        print(10 * (sum(counts) + 8))
        """,
    )
    rows = int(one.end() or 0)
    assert rows > 1000
    delivered(collector, rows)


def test_a_publisher_is_not_pickled() -> None:
    with (
        zmon.Publisher("m", classes=2, collector=NOBODY) as one,
        pytest.raises(TypeError, match="construct one in each process"),
    ):
        pickle.dumps(one)


def test_many_threads_on_one_publisher(collector: Collector, child: Start) -> None:
    one = child(
        collector.data,
        """
        shared = publisher()

        def work(number):
            for _ in range(50):
                shared.publish(np.full(number % 7 + 1, 0.5))
                if number == 0:
                    shared.flush(5)
                    shared.stats

        threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(shared.stats.published)
        """,
    )
    rows = sum(50 * (number % 7 + 1) for number in range(64))
    assert int(one.end() or 0) == rows
    delivered(collector, rows)


def test_in_an_asyncio_loop(collector: Collector, child: Start) -> None:
    one = child(
        collector.data,
        """
        import asyncio

        async def tick(gaps):
            last = time.monotonic()
            while True:
                await asyncio.sleep(0.005)
                now = time.monotonic()
                gaps.append(now - last)
                last = now

        async def request(shared):
            for _ in range(20):
                shared.publish(TEN)
                await asyncio.sleep(0)

        async def main():
            gaps = []
            ticker = asyncio.create_task(tick(gaps))
            with publisher() as shared:
                await asyncio.gather(*[request(shared) for _ in range(30)])
                flushed = await asyncio.to_thread(shared.flush, 10)
                ticker.cancel()
            print(flushed, max(gaps))

        asyncio.run(main(), debug=False)
        """,
    )
    flushed, gap = one.end().split()
    assert flushed == "True"
    assert float(gap) < 1.0, "publish() held the loop"
    delivered(collector, 30 * 20 * 10)
