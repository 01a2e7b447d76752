"""Copies of a data directory, taken beside a server that works, and put back: every byte of them is checked."""
