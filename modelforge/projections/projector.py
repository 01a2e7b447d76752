"""Follows the log: folds each new record into the read models, and wakes whoever waits for one."""

import asyncio
from collections.abc import Callable, Sequence

from modelforge.domain.messages import Record
from modelforge.projections.indexes import Indexes


class Projector:
    """Keeps the read models, and their indexes, at the log's last record.

    `listener` gets every record, in order, once it is folded in.
    """

    def __init__(self, indexes: Indexes) -> None:
        self.indexes = indexes
        self.read_models = indexes.read_models
        self.listener: Callable[[Record], None] | None = None
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, records: Sequence[Record]) -> None:
        """Fold new records in."""
        for record in records:
            self.indexes.apply(record)
            if self.listener is not None:
                self.listener(record)
        changed, self._changed = self._changed, asyncio.get_running_loop().create_future()
        changed.set_result(None)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that only new records can change."""
        while not holds():
            await asyncio.shield(self._changed)
