"""What is left of a training: the saved model with its card, and what is made of it: merged, exported, pushed."""
