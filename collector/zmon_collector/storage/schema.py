"""The tables of state.sqlite and their version: a newer file is refused untouched, an older one migrated in place."""

from __future__ import annotations

import sqlite3

APPLICATION = 0x7A6D6F6E  # "zmon": distinguishes our files from others
# A chunk has up to megabytes, a counter some bytes. With pages of 16 KiB a chunk is a fourth of the pages, and so of
# the work, that it would be with SQLite's usual 4 KiB, and a changed counter still costs the log one page only.
PAGE = 16 * 2**10

LABELS = """
CREATE TABLE predictions (        -- rows with an id, which may get their label later; the oldest have the least n
    n INTEGER PRIMARY KEY, owner INTEGER, id BLOB, agent TEXT, at INTEGER, start INTEGER, "end" INTEGER, predicted,
    kind TEXT, p BLOB, label, kept REAL, size INTEGER
);
CREATE UNIQUE INDEX predictions_by_id ON predictions (owner, id);
CREATE INDEX predictions_by_window ON predictions (owner, start);
CREATE TABLE labels_waiting (     -- labels whose prediction has not arrived
    n INTEGER PRIMARY KEY, owner INTEGER, id BLOB, label, at INTEGER, agent TEXT, received REAL, size INTEGER
);
CREATE UNIQUE INDEX labels_waiting_by_id ON labels_waiting (owner, id);
CREATE TABLE label_owners (owner INTEGER PRIMARY KEY, model TEXT, version TEXT, task TEXT, classes BLOB);
CREATE TABLE label_bytes (kept INTEGER);  -- of predictions and labels_waiting together
INSERT INTO label_bytes (kept) VALUES (0);
CREATE TABLE restate (owner INTEGER, start INTEGER, "end" INTEGER, PRIMARY KEY (owner, start)) WITHOUT ROWID;
CREATE TABLE alerts (name TEXT PRIMARY KEY, data BLOB) WITHOUT ROWID;  -- since version 4 only what all models share
"""

RESTS = """
CREATE TABLE heard (model TEXT, version TEXT, at REAL, PRIMARY KEY (model, version))
    WITHOUT ROWID;               -- when a model last sent something
ALTER TABLE restate ADD COLUMN labels INTEGER DEFAULT 1;  -- turns that gave labels and are not restated yet
ALTER TABLE restate ADD COLUMN due REAL DEFAULT 0;        -- not before, epoch seconds
ALTER TABLE restate ADD COLUMN rest REAL DEFAULT 2;       -- seconds, after the next time
CREATE INDEX restate_by_due ON restate (due, start);
"""

SEALED = (
    *("streams", "windows", "schemas", "tallies", "agents", "spans", "memory", "heard"),
    *("cursors", "label_owners", "predictions", "labels_waiting", "alerts", "refused"),
)
# The checksum of a row's other columns; NULL in rows that an older release wrote.
PROGRESS = f"""
{" ".join(f"ALTER TABLE {table} ADD COLUMN crc INTEGER;" for table in SEALED)}
CREATE TABLE periods (            -- the lengths of a model's windows, and since when
    model TEXT, version TEXT, steps BLOB, crc INTEGER, PRIMARY KEY (model, version)
) WITHOUT ROWID;
CREATE TABLE mains (              -- task and classes of a version's newest window, and the version whose variant it is
    model TEXT, version TEXT, schema BLOB, main TEXT, crc INTEGER, PRIMARY KEY (model, version)
) WITHOUT ROWID;
ALTER TABLE windows ADD COLUMN policy BLOB;     -- digests of what holds for the window; NULL: not noted
ALTER TABLE windows ADD COLUMN reference BLOB;  -- empty: none
CREATE INDEX windows_by_closing ON windows (closing);
CREATE TABLE contracts (digest BLOB PRIMARY KEY, data BLOB, crc INTEGER);  -- policies and profiles
CREATE TABLE label_policies (     -- the policies of windows, from prediction n of an owner on: digests of contracts
    owner INTEGER, n INTEGER, policy BLOB, crc INTEGER, PRIMARY KEY (owner, n)
) WITHOUT ROWID;
ALTER TABLE predictions ADD COLUMN client TEXT DEFAULT '';  -- its sender in the allow-list
ALTER TABLE predictions ADD COLUMN sender TEXT;            -- the agent's own name; NULL: `agent`
ALTER TABLE labels_waiting ADD COLUMN agents BLOB DEFAULT x'';  -- of whose rows, packed globs; empty: anybody's
ALTER TABLE labels_waiting ADD COLUMN stream BLOB DEFAULT x'';  -- that is answered
DROP INDEX predictions_by_id;
CREATE UNIQUE INDEX predictions_by_id ON predictions (owner, id, client);
DROP INDEX labels_waiting_by_id;
CREATE UNIQUE INDEX labels_waiting_by_id ON labels_waiting (owner, id, agents);
CREATE TABLE tags (               -- of an agent in a window; window 0: of its newest rows
    window INTEGER, model TEXT, version TEXT, agent TEXT, tags BLOB, crc INTEGER,
    PRIMARY KEY (window, model, version, agent)
) WITHOUT ROWID;
ALTER TABLE streams ADD COLUMN identity TEXT;   -- who holds the place of a stream, a model or an agent; NULL: unknown
ALTER TABLE heard ADD COLUMN identity TEXT;
ALTER TABLE agents ADD COLUMN identity TEXT;
ALTER TABLE agents ADD COLUMN heard REAL;  -- when it last sent rows, epoch seconds; NULL: unknown
CREATE INDEX refused_by_reader ON refused (reader, id);
CREATE INDEX refused_by_time ON refused (at);
CREATE TABLE refused_counts (reader TEXT PRIMARY KEY, samples INTEGER) WITHOUT ROWID;  -- rows of `refused`
INSERT INTO refused_counts (reader, samples) SELECT coalesce(reader, ''), count(*) FROM refused GROUP BY 1;
CREATE TRIGGER refused_added AFTER INSERT ON refused BEGIN
    INSERT INTO refused_counts (reader, samples) VALUES (coalesce(new.reader, ''), 1)
        ON CONFLICT DO UPDATE SET samples = samples + 1;
END;
CREATE TRIGGER refused_dropped AFTER DELETE ON refused BEGIN
    UPDATE refused_counts SET samples = samples - 1 WHERE reader = coalesce(old.reader, '');
END;
CREATE TABLE alert_models (       -- what the rules remember of a model and its series
    model TEXT, version TEXT, data BLOB, crc INTEGER, PRIMARY KEY (model, version)
) WITHOUT ROWID;
CREATE TABLE alert_entries (id INTEGER PRIMARY KEY, data BLOB, crc INTEGER);  -- open and closed alerts
CREATE TABLE alert_messages (     -- to be sent
    target TEXT, number INTEGER, data BLOB, crc INTEGER, PRIMARY KEY (target, number)
) WITHOUT ROWID;
"""

TABLES = """
CREATE TABLE store (name BLOB);  -- its id, sent to publishers with each acknowledgement
INSERT INTO store (name) VALUES (randomblob(8));
CREATE TABLE streams (            -- positions: everything up to `row` is settled
    id BLOB PRIMARY KEY, topic BLOB, row INTEGER, issued INTEGER, tally BLOB, gone INTEGER, heard REAL
) WITHOUT ROWID;
CREATE TABLE windows (            -- open ones, and closing ones whose report is not written yet
    number INTEGER PRIMARY KEY, model TEXT, version TEXT, start INTEGER, "end" INTEGER, schema BLOB,
    closing INTEGER DEFAULT 0,    -- the place in the order in which they closed, from 1; before version 4 always 1
    through INTEGER DEFAULT -1  -- chunks of turns up to this one are in the checkpoint
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
MIGRATIONS = (
    LABELS,
    RESTS,
    PROGRESS,
)  # each turns a file of one version into one of the next; a new file gets them all
VERSION = 1 + len(MIGRATIONS)


def prepare(connection: sqlite3.Connection) -> None:
    """Apply the settings that must come before the first table, and those of every connection."""
    for pragma in (
        f"page_size = {PAGE}",
        # Deleted rows leave free pages. A full VACUUM would rewrite the file and stop everything for minutes; so pages
        # are returned little by little (`Database._delete_slice`). It must be chosen before the first table.
        "auto_vacuum = INCREMENTAL",
        # One process and one connection: a second collector on the folder is refused, and the log needs no
        # shared-memory file, which some network and container file systems do not have.
        "locking_mode = EXCLUSIVE",
        "journal_mode = WAL",  # one sync a commit, of appended bytes
        "synchronous = FULL",  # an acknowledgement promises that the rows survive a power failure
        "secure_delete = OFF",  # overwriting the rows of a closed window would block for seconds
        f"wal_autocheckpoint = {16 * 2**20 // PAGE}",
        f"journal_size_limit = {64 * 2**20}",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def version_of(connection: sqlite3.Connection) -> int:
    """Return the file's version, 0 for a new file; ValueError when another program wrote it."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION and (tables or version):
        raise ValueError("it belongs to another program")
    return int(version)


def create(connection: sqlite3.Connection) -> None:
    """Create the tables of this version in an empty file."""
    connection.executescript(
        f"BEGIN; {TABLES} {' '.join(MIGRATIONS)}"
        f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
        "PRAGMA wal_checkpoint(TRUNCATE);"  # if the log is lost later, the store's id must not be lost with it
    )


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring an older file to this version, in one transaction."""
    steps = " ".join(MIGRATIONS[version - 1 :])
    connection.executescript(f"BEGIN; {steps} PRAGMA user_version = {VERSION}; COMMIT;")
