"""The tables of state.sqlite and their version: a newer file is refused untouched, an older one migrated in place."""

from __future__ import annotations

import sqlite3

APPLICATION = 0x7A6D6F6E  # "zmon": tells our files from others
VERSION = 3
PAGE = 16 * 2**10  # bytes; large enough that a megabyte of rows is few pages, small enough for single counters

LABELS = """
CREATE TABLE predictions (        -- rows with an id, which may get their label later; the oldest have the least n
    n INTEGER PRIMARY KEY, owner INTEGER, id BLOB, agent TEXT, at INTEGER, start INTEGER, "end" INTEGER, predicted,
    kind TEXT, p BLOB, label, kept REAL, size INTEGER
);
CREATE UNIQUE INDEX predictions_by_id ON predictions (owner, id);
CREATE INDEX predictions_by_window ON predictions (owner, start);
CREATE TABLE labels_waiting (     -- labels whose prediction has not come
    n INTEGER PRIMARY KEY, owner INTEGER, id BLOB, label, at INTEGER, agent TEXT, received REAL, size INTEGER
);
CREATE UNIQUE INDEX labels_waiting_by_id ON labels_waiting (owner, id);
CREATE TABLE label_owners (owner INTEGER PRIMARY KEY, model TEXT, version TEXT, task TEXT, classes BLOB);
CREATE TABLE label_bytes (kept INTEGER);  -- of predictions and labels_waiting together
INSERT INTO label_bytes (kept) VALUES (0);
CREATE TABLE restate (owner INTEGER, start INTEGER, "end" INTEGER, PRIMARY KEY (owner, start)) WITHOUT ROWID;
CREATE TABLE alerts (name TEXT PRIMARY KEY, data BLOB) WITHOUT ROWID;  -- the state of alerts, and what is to be sent
"""

RESTS = """
CREATE TABLE heard (model TEXT, version TEXT, at REAL, PRIMARY KEY (model, version))
    WITHOUT ROWID;               -- when something last came of a model
ALTER TABLE restate ADD COLUMN labels INTEGER DEFAULT 1;  -- turns that gave labels and are not restated yet
ALTER TABLE restate ADD COLUMN due REAL DEFAULT 0;        -- not before, epoch seconds
ALTER TABLE restate ADD COLUMN rest REAL DEFAULT 2;       -- seconds, after the next time
CREATE INDEX restate_by_due ON restate (due, start);
"""

TABLES = """
CREATE TABLE store (name BLOB);  -- told to publishers with each acknowledgement
INSERT INTO store (name) VALUES (randomblob(8));
CREATE TABLE streams (            -- positions: everything up to `row` is settled
    id BLOB PRIMARY KEY, topic BLOB, row INTEGER, issued INTEGER, tally BLOB, gone INTEGER, heard REAL
) WITHOUT ROWID;
CREATE TABLE windows (            -- open ones, and closing ones whose report is not written yet
    number INTEGER PRIMARY KEY, model TEXT, version TEXT, start INTEGER, "end" INTEGER, schema BLOB,
    closing INTEGER DEFAULT 0, through INTEGER DEFAULT -1  -- chunks of turns up to this one are in the checkpoint
);
CREATE TABLE schemas (window INTEGER, hash BLOB, body BLOB, PRIMARY KEY (window, hash)) WITHOUT ROWID;
CREATE TABLE tallies (            -- row counts; window 0: counted while none was open
    window INTEGER, model TEXT, version TEXT, agent TEXT, counts BLOB, PRIMARY KEY (window, model, version, agent)
) WITHOUT ROWID;
CREATE TABLE agents (model TEXT, version TEXT, agent TEXT, newest REAL, PRIMARY KEY (model, version, agent))
    WITHOUT ROWID;
CREATE TABLE spans (model TEXT, version TEXT, start INTEGER, "end" INTEGER, PRIMARY KEY (model, version, start))
    WITHOUT ROWID;               -- closed stretches of time
CREATE TABLE chunks (id INTEGER PRIMARY KEY, window INTEGER, turn INTEGER, crc INTEGER, data BLOB);
CREATE INDEX chunks_by_window ON chunks (window, turn);
CREATE TABLE checkpoints (window INTEGER PRIMARY KEY, crc INTEGER, data BLOB);
CREATE TABLE memory (model TEXT, version TEXT, metric TEXT, agent TEXT, data BLOB,
    PRIMARY KEY (model, version, metric, agent)) WITHOUT ROWID;  -- agent '': the rollup's
CREATE TABLE reports (sequence INTEGER PRIMARY KEY, written REAL, crc INTEGER, data BLOB);
CREATE TABLE cursors (reader TEXT PRIMARY KEY, sequence INTEGER) WITHOUT ROWID;
CREATE TABLE settled (reader TEXT PRIMARY KEY, sequence INTEGER, done INTEGER) WITHOUT ROWID;
CREATE TABLE refused (id INTEGER PRIMARY KEY, reader TEXT, sequence INTEGER, at REAL, code TEXT, description TEXT,
    sample BLOB);
"""
MIGRATIONS = {1: LABELS, 2: RESTS}  # what brings a file of that version to the next


def prepare(connection: sqlite3.Connection) -> None:
    """Settings that must come before the first table, and those of every connection."""
    for pragma in (
        f"page_size = {PAGE}",
        "auto_vacuum = INCREMENTAL",
        "locking_mode = EXCLUSIVE",  # one process, one connection; no shared-memory file either
        "journal_mode = WAL",
        "synchronous = FULL",
        "secure_delete = OFF",  # overwriting a closed window's rows would block for seconds
        f"wal_autocheckpoint = {16 * 2**20 // PAGE}",
        f"journal_size_limit = {64 * 2**20}",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def version_of(connection: sqlite3.Connection) -> int:
    """The file's version; 0 when it is new. ValueError when it is not zmon's."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION and (tables or version):
        raise ValueError("it belongs to another program")
    return int(version)


def create(connection: sqlite3.Connection) -> None:
    """Make the tables of this version in an empty file."""
    connection.executescript(
        f"BEGIN; {TABLES} {LABELS} {RESTS}"
        f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
        "PRAGMA wal_checkpoint(TRUNCATE);"  # a log that is lost later must not take the store's name with it
    )


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring an older file to this version, all of it or nothing."""
    steps = " ".join(MIGRATIONS[each] for each in range(version, VERSION))
    connection.executescript(f"BEGIN; {steps} PRAGMA user_version = {VERSION}; COMMIT;")
