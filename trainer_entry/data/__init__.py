"""The records of a dataset file, what a task makes of them, and how a prompt is written for a model."""
