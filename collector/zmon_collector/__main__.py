"""``python -m zmon_collector``: the same as the `zmon` command."""

from zmon_collector.cli.main import main

main()
