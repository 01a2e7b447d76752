"""The event log: the records, in order, durable, chained by their digests."""
