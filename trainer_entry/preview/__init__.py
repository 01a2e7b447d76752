"""A dataset as a model reads it: the tokens of its records, and how long they are."""
