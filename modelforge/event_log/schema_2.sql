-- What schema 2 adds to a log of schema 1; a new log takes both in turn. Steps are most of a log and are read by their
-- place in it: only what is not one is indexed, so that a step costs no more to write.
CREATE INDEX facts ON records (stream, type, position) WHERE type <> 'MetricsLogged';
CREATE INDEX types ON records (type, position) WHERE type <> 'MetricsLogged';

-- What a start is shortened by lies in a file of its own.
DROP TABLE IF EXISTS snapshots;
