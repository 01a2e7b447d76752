"""The chain of digests, followed record by record: which version each has, and whether it follows the one before."""

from msgspec import Struct

from modelforge.domain.messages import GENESIS, digest_of, first_digest_of

Row = tuple[int, str, int, str, str, int, int | None, str, str, str]
"""The columns of a record, its data unpacked."""


class Chain(Struct):
    """A chain as far as it was followed. `digest`: of the last record.

    `has_second`: whether a digest of the second version was met; from then on there is no other. Nobody can say that
    the second version began elsewhere: a digest fits the bytes of one version alone.
    """

    digest: str = GENESIS
    has_second: bool = False

    def follows(self, row: Row) -> bool:
        """Whether a row is what was written after the record before it; the chain goes on from its digest in any case.

        Raises:
            UnicodeEncodeError: the row has what is no text.
        """
        previous, self.digest = self.digest, row[-1]
        columns, data, stored = row[:8], row[8].encode(), row[9]
        if digest_of(previous, *columns, data) == stored:  # type: ignore[arg-type]
            self.has_second = True
            return True
        return not self.has_second and first_digest_of(previous, *columns, data) == stored  # type: ignore[arg-type]


class Versions:
    """The lengths of streams, as far as the log was followed."""

    def __init__(self, *, from_the_first: bool = True) -> None:
        self._lengths: dict[str, int] = {}
        self._knows_all = from_the_first

    def fault(self, stream: str, version: int) -> str | None:
        """What is wrong with a version that comes next; the stream goes on from it in any case."""
        before = self._lengths.get(stream, 0 if self._knows_all else version - 1)
        self._lengths[stream] = version
        return None if version == before + 1 else f"version {version} of {stream} follows {before}"

    def pass_over(self) -> None:
        """Go on behind records that are not looked at: streams may have any length."""
        self._lengths.clear()
        self._knows_all = False
