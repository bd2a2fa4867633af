"""What several tests share, one file a purpose.

| module | holds |
|---|---|
| collectors | `Collector`, a real one on a thread of the test's process; the fixture `collect` starts them |
| processes | `command` and `Running`: the command line in processes of its own |
| children | `Child`, a script in a process of its own with a deadline |
| inside | what those scripts use: a publisher, the sum of its counters, shortages |
| mortal | `Mortal`, a collector process that dies and comes back on the same port and folder |
| twins | `Twins`, a watched publisher beside one that is used by hand; `overhead` |
| servers | `Server`, a server example in a process of its own |
| peer | `Peer`, the collector's side of the protocol, played step by step |
| standin | `StandIn`, the HTTP API of Anodot, with its faults |
| pages | requests to the live page, and `Viewer`, who follows its events |
| reports | `window`, a report with every series that the page draws |
| points | `by_names`, points by the properties that tell series apart; `legal`, the vendor's rules |
| waiting | `until`, instead of a sleep |
| databases | `in_memory`, an empty database, and `stored`, what a collector left in its file |
| tables | rows of one table, in the shapes that oracles and publishers take |
| metrics | `METRICS`, the installed metrics, and random rows for them |
| capture | capturing without a publisher |
| api_sinks | reports, a clock and a ledger for the API sinks |
| tiers | which tests are unit, integration and system |
| ports | `free_port` |
| frameworks | `require`: skip without a framework, or fail where ZMON_REQUIRE_ALL is set |
"""
