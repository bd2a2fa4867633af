"""``python -m zmon_collector``: the same as the `zmon` command."""

from zmon_collector.cli import main

main()
