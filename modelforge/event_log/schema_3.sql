-- What schema 3 adds: where `packed` is not null it is the record's data, packed, and `data` is empty.
ALTER TABLE records ADD COLUMN packed BLOB;

-- What was archived: closed files, each with the records of a range that are no longer in `records`. The ranges begin at 1,
-- without a gap, and end where `records` begins.
CREATE TABLE segments (
    first    INTEGER PRIMARY KEY,
    last     INTEGER NOT NULL,
    start    TEXT NOT NULL,    -- the digest before the first record
    end      TEXT NOT NULL,    -- that of the last one
    size     INTEGER NOT NULL, -- of the file, in bytes
    sha256   TEXT NOT NULL,    -- of the file
    types    TEXT NOT NULL,    -- of its records, a JSON array
    earliest INTEGER NOT NULL, -- unix microseconds
    latest   INTEGER NOT NULL
) STRICT;

-- Which segments have records of a stream, for none else is looked into for it.
CREATE TABLE archived_streams (
    stream  TEXT NOT NULL,
    segment INTEGER NOT NULL, -- its first position
    PRIMARY KEY (stream, segment)
) STRICT, WITHOUT ROWID;
