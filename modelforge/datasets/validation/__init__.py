"""The validation of a dataset: what kind of file it is, its format, every record, and the hash of its bytes.

The work is done by a process of its own (`python -m modelforge.datasets.validation`), so that gigabytes neither
block the server nor stay in its memory. `process` is how the server runs it.
"""
