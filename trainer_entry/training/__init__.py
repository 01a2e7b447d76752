"""The trainers of an attempt, their arguments and defaults, the training loop, and its checkpoints."""
