"""What makes a whole file unreadable."""


class Unusable(Exception):
    """A file cannot be read as what it is, from a line on."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message
