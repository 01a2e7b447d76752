"""The server itself: what it can do, its log, and who gets in."""

import contextlib
from collections.abc import AsyncGenerator, Sequence

from modelforge.client.calls import Calls, takes
from modelforge.http.audit import Verified
from modelforge.http.events import Events
from modelforge.http.machine import Examination, MachineDetails
from modelforge.http.sessions import LoginLink, WhoAsks
from modelforge.http.system import Health, Info
from modelforge.http.tokens import MadeToken, NewToken, TokenList, TokenRevoked
from modelforge.projections.read_models import StateAt
from modelforge.projections.status_messages import LoggedRecord


class ServerCalls(Calls):
    """What is asked of the server."""

    async def get_info(self) -> Info:
        """The tasks, strategies and providers that there are, and the server's release."""
        return await self._get(Info, "info")

    async def get_health(self) -> Health:
        """Whether the server answers; it asks for no token."""
        return await self._get(Health, "health")

    async def get_state(self, *, at: int | None = None) -> StateAt:
        """Status, models and datasets as they stood at a position of the log; by default as they stand."""
        return await self._get(StateAt, "state", at=at)

    async def list_events(
        self,
        *,
        after: int | None = None,
        limit: int | None = None,
        stream: str | Sequence[str] | None = None,
        type: str | Sequence[str] | None = None,  # noqa: A002 - the query's own name
    ) -> Events:
        """Records of the log after a position, of some streams or types. Go on after the answer's `last_position`."""
        return await self._get(Events, "events", after=after, limit=limit, stream=stream, type=type)

    async def stream_events(self, *, after: int = 0, job_id: str | None = None) -> AsyncGenerator[LoggedRecord, None]:
        """Every record of the log after a position, and then what comes, without an end; `job_id`: of one job.

        A connection that is lost, and a server that starts again, are waited for: no record is left out and none comes
        twice.

        Raises:
            RequestRefused: there is no such job or position, or the server did not come back within a minute.
        """
        async with contextlib.aclosing(self._connection.follow_records(after, LoggedRecord, job_id=job_id)) as records:
            async for record in records:
                yield record

    async def verify_log(self) -> Verified:
        """Whether every record of the log is what was written; one at a time is checked."""
        return await self._get(Verified, "verify")

    async def get_machine(self) -> MachineDetails:
        """Processors, memory, GPUs and the jobs that have them, the disk, versions, and how many jobs run and wait."""
        return await self._get(MachineDetails, "machine")

    async def examine_machine(self) -> Examination:
        """What the doctor finds wrong with the data and this machine; nothing is changed."""
        return await self._post(Examination, "doctor")

    async def get_session(self) -> WhoAsks:
        """Who asks, by the token of this client, what they may do, and until when."""
        return await self._get(WhoAsks, "session")

    async def list_tokens(self) -> TokenList:
        """The tokens, less the tokens themselves; this takes the scope `admin`."""
        return await self._get(TokenList, "tokens")

    @takes(NewToken)
    async def create_token(self, body: NewToken) -> MadeToken:
        """Make a token, which is shown this once; this takes the scope `admin`, and no idempotency key."""
        return await self._post(MadeToken, "tokens", body=body)

    async def revoke_token(self, name: str) -> TokenRevoked:
        """Let nobody in by a token any more; this takes the scope `admin`."""
        return await self._delete(TokenRevoked, "tokens", name)

    async def make_login_link(self) -> LoginLink:
        """A path that signs one browser in, once; this takes the scope `admin`, and no idempotency key."""
        return await self._post(LoginLink, "login_links")
