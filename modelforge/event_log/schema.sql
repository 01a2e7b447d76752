-- The event log. `position` is global and gapless; `data` is the message as JSON; `digest` chains every record
-- to the one before it. PRAGMA user_version is the schema's number: a higher one than ours is refused untouched.
CREATE TABLE records (
    position INTEGER PRIMARY KEY,
    stream   TEXT NOT NULL,
    version  INTEGER NOT NULL,
    kind     TEXT NOT NULL CHECK (kind IN ('command', 'event')),
    type     TEXT NOT NULL,
    at       INTEGER NOT NULL, -- unix microseconds
    cause    INTEGER,          -- the position that led to this one
    actor    TEXT NOT NULL,
    data     TEXT NOT NULL,
    digest   TEXT NOT NULL,
    UNIQUE (stream, version)
) STRICT;

-- State and read models as of a position. Only ever a short cut: what is missing here is rebuilt from the records.
CREATE TABLE snapshots (
    position INTEGER PRIMARY KEY,
    release  TEXT NOT NULL, -- a snapshot of another release is not read
    digest   TEXT NOT NULL, -- of the record at `position`
    data     BLOB NOT NULL
) STRICT;
