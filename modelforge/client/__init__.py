"""A client of the HTTP API for Python: `Client`, and `AsyncClient`, which has the same methods to be awaited."""

from modelforge.client.asynchronous import AsyncClient
from modelforge.client.blocking import Client
from modelforge.client.jobs import LogPart
from modelforge.server_answers import RequestRefused

__all__ = ["AsyncClient", "Client", "LogPart", "RequestRefused"]
