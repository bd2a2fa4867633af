"""A plugin whose metric never returns."""

import time

from zmon import Value
from zmon.hooks import hookimpl


class Hangs:
    name = "hangs"
    needs = frozenset({"predicted"})

    def create(self, ctx):
        return 0

    def update(self, acc, batch, ctx):
        time.sleep(3600)
        return acc

    def merge(self, left, right):
        return left + right

    def result(self, acc, ctx):
        yield Value("hangs", acc)


@hookimpl
def register_metrics(register):
    register(Hangs())
