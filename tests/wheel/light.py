"""The light install: importing and publishing load nothing heavy, and it does not matter that nobody listens."""

import sys
import time

import numpy as np

import zmon

heavy = {"pluggy", "click", "scipy", "sklearn", "pandas", "tensorflow", "rich"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
publisher = zmon.Publisher("light", classes=["no", "yes"], collector="tcp://127.0.0.1:59997")
publisher.publish(np.array([[0.9, 0.1], [0.4, 0.6]]), inputs=[{"age": 30}, {"age": 40}], labels=["no", "yes"])
assert publisher.stats.published == 2, publisher.stats
assert not heavy & set(sys.modules), heavy & set(sys.modules)
started = time.monotonic()
publisher.close()
assert time.monotonic() - started < 1.0
sys.stdout.write("light install publishes\n")
