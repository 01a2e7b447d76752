"""Answers of a trained or untrained model, for the playground."""
