"""A dataset as a model sees it: the tokens of its records, and how long they are."""
