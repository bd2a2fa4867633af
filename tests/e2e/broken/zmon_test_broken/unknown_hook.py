"""A plugin that implements a hook which does not exist."""

from zmon.hooks import hookimpl


@hookimpl
def register_metricks(register, options):
    register(object())
