"""The chain of digests, followed record by record: which version each has, and whether it goes on from the one before."""

from msgspec import Struct

from modelforge.domain.messages import GENESIS, digest_of, first_digest_of

Row = tuple[int, str, int, str, str, int, int | None, str, str, str]
"""The columns of a record, its data unpacked."""


class Chain(Struct):
    """A chain as far as it was followed. `digest`: of the last record.

    `has_second`: whether a digest of the second version was met. From then on there is no other: what was written before
    cannot be told to be of the second version, for its digest fits the first alone, nor what was written since to be of
    the first.
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
