"""What a killed collector leaves in its folder, written through the storage layer: as much as a test needs."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from zmon_collector.config import Config
from zmon_collector.config.policy import PolicyStore
from zmon_collector.loading import load_plugins
from zmon_collector.storage import journal, schema
from zmon_collector.storage.chunk_codec import ChunkRecord
from zmon_collector.storage.journal import Turn
from zmon_collector.storage.journal_tables import MEMORY, StreamRow, WindowRow

from zmon._wire.frames import Topic, encode_schema, pack, schema_hash
from zmon.batch import Schema
from zmon.state import pack_state

HOUR = 3600
FEATURES = 20
SCHEMA = Schema(classes=("a", "b"), features=tuple(f"f{n}" for n in range(FEATURES)), kinds=("numeric",) * FEATURES)


class Leftover(NamedTuple):
    """How much there is of what: an open window of an hour for each model, with rows of each of its agents."""

    models: int = 1
    agents: int = 1
    rows: int = 0  # of each agent in the window
    memory: int = 0  # metrics that remember something of each agent

    def stream(self, model: int, agent: int) -> bytes:
        """The publisher of an agent."""
        return b"%08d%08d" % (model, agent)


def leave(folder: Path, what: Leftover, config: Config | None = None) -> int:
    """Write the folder; return the bytes of state.sqlite."""
    folder.mkdir(parents=True)
    config = config or Config()
    registry = load_plugins(config)
    metrics = {name: state.plugin for name, state in registry.metrics.items()}
    policy = PolicyStore(config).of("m").for_windows(registry.editions(), metrics)
    body, now = encode_schema(SCHEMA), time.time()
    name, start = schema_hash(body), int(now) // HOUR * HOUR
    random = np.random.default_rng(0)
    p = random.dirichlet((1.0, 1.0), what.rows).astype("f4")
    x = random.normal(size=(what.rows, FEATURES)).astype("f4")
    path = folder / "state.sqlite"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        schema.prepare(connection)
        schema.create(connection)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        for model in range(what.models):
            turn = Turn(model + 1)
            key, number = (f"model-{model:04}", ""), model + 1
            row = WindowRow(number, *key, start, start + HOUR, body, policy=policy.digest, reference=b"")
            turn.windows.append(row)
            turn.schemas.append((number, name, body))
            turn.heard.append((*key, now, ""))
            turn.periods.append((*key, pack([(0, HOUR)])))
            turn.spans.append((*key, start - 24 * HOUR, start))
            turn.contracts = [(policy.digest, policy.packed)] if model == 0 else []
            records = []
            for agent in range(what.agents):
                agent_id, stream = f"agent-{agent:03}", what.stream(model, agent)
                topic = Topic(*key, agent_id).encode()
                turn.streams.append(StreamRow(stream, topic, what.rows, what.rows, pack({}), 0, now))
                turn.agents.append((*key, agent_id, now, now, ""))
                turn.counts.append((number, *key, agent_id, pack([what.rows, 0, 0, 0, {}, {}])))
                turn.tags.append((number, *key, agent_id, pack({"zone": "a"})))
                if what.rows:
                    columns = {"probabilities": p, "inputs": x}
                    records.append(ChunkRecord(agent_id, stream, name, 1, what.rows, columns))
            turn.chunks = {number: records} if records else {}
            journal.write(turn, connection)
            kept = pack_state({"reference": [0.5] * 10})
            MEMORY.write(
                ((*key, f"metric-{metric}", f"agent-{agent:03}", kept)
                 for metric in range(what.memory) for agent in range(what.agents)),
                connection,
            )  # fmt: skip
        connection.execute("COMMIT")
    return path.stat().st_size


def damage(folder: Path, share: int = 100) -> set[str]:
    """Flip a bit in a blob, or else in the checksum, of every `share`-th row of every table; return their names."""
    damaged = set()
    with contextlib.closing(sqlite3.connect(folder / "state.sqlite", isolation_level=None)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        connection.execute("BEGIN")
        for table in set(tables) - {"store", "label_bytes", "refused_counts"}:  # without rows of their own
            described = connection.execute(f"PRAGMA table_info({table})").fetchall()
            blobs = [row[1] for row in described if row[2] == "BLOB" and not row[5]]
            keys = [f'"{row[1]}"' for row in described if row[5]]
            where = " AND ".join(f"{key} IS ?" for key in keys)
            found = connection.execute(f"SELECT {', '.join(keys)} FROM {table}").fetchall()
            for row in found[::share]:
                if blobs:
                    query = f'SELECT "{blobs[-1]}" FROM {table} WHERE {where}'
                    data = bytearray(connection.execute(query, row).fetchone()[0] or b"\0")
                    data[len(data) // 2] ^= 1
                    connection.execute(f'UPDATE {table} SET "{blobs[-1]}" = ? WHERE {where}', (bytes(data), *row))
                elif any(row[1] == "crc" for row in described):
                    connection.execute(f"UPDATE {table} SET crc = crc + 1 WHERE {where}", row)
                damaged.add(table)
        connection.execute("COMMIT")
    return damaged
