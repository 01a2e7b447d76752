"""The read models, folded from the log."""
