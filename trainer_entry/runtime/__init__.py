"""The process of an attempt: its stdout, signals, heartbeat, failures, and the other processes beside it."""
