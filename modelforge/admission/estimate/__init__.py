"""The memory and the disk that a training takes, estimated before it starts."""
