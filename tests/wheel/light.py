"""The light install: importing and publishing load nothing heavy, and it does not matter that nobody listens."""

import sys
import time

import numpy as np

import zmon
from zmon.mlwatcher import MonitoringAgent

heavy = {"pluggy", "click", "scipy", "sklearn", "pandas", "tensorflow", "rich"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
publisher = zmon.Publisher("light", classes=["no", "yes"], collector="tcp://127.0.0.1:59997")
publisher.publish(np.array([[0.9, 0.1], [0.4, 0.6]]), inputs=[{"age": 30}, {"age": 40}], labels=["no", "yes"])
assert publisher.stats.published == 2, publisher.stats
assert not heavy & set(sys.modules), heavy & set(sys.modules)
started = time.monotonic()
publisher.close()
assert time.monotonic() - started < 1.0
agent = MonitoringAgent(1, 100, 2, server_port=59995)
try:
    agent.run_local_server()
except zmon.MissingExtraError as error:
    assert 'pip install "zmon-agent[collector]"' in str(error), error
else:
    raise AssertionError("run_local_server found a collector in the light install")
score = zmon.watch(lambda rows: np.full((len(rows), 2), 0.5), zmon.Publisher("f", collector="tcp://127.0.0.1:59997"))
score([[1.0]])
assert not heavy & set(sys.modules), heavy & set(sys.modules)
sys.stdout.write("light install publishes\n")
