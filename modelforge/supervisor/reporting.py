"""What is reported to the log from outside: until there is space for it."""

import asyncio

import structlog

from modelforge.command_handler import CommandHandler
from modelforge.domain.messages import Actor, Command, Report
from modelforge.domain.state import State
from modelforge.errors import StorageFull

_log = structlog.get_logger()
_FULL_SECONDS = 1.0


class Reporting:
    """Takes reports to the log, and knows what it says."""

    def __init__(self, handler: CommandHandler) -> None:
        self._handler = handler

    @property
    def state(self) -> State:
        """What the log leads to now."""
        return self._handler.state

    async def submit(self, message: Command | Report, actor: Actor = "supervisor", cause: int | None = None) -> None:
        """Until there is space for it: what a trainer wrote stays in its spool meanwhile."""
        while True:
            try:
                await self._handler.submit(message, actor=actor, cause=cause)
            except StorageFull:
                _log.warning("log_full", waiting=type(message).__name__)
                await asyncio.sleep(_FULL_SECONDS)
            else:
                return
