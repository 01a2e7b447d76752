"""One delivery by HTTP, signed as Standard Webhooks has it (https://www.standardwebhooks.com)."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Iterable

import aiohttp
from msgspec import Struct
from yarl import URL

from modelforge.domain.webhook import shown_url
from modelforge.version import VERSION
from modelforge.webhooks.addresses import AddressRefused, CheckedResolver, check_literal
from modelforge.webhooks.secrets import PREFIX, Secret

SECONDS = 15.0
"""How long an endpoint has for its answer, from the look-up of its name on."""
_SUCCESSES = range(200, 300)
_REDIRECTS = range(300, 400)


class Answer(Struct, frozen=True, kw_only=True):
    """What came of a delivery. `reason`: why it did not arrive; None of one that did."""

    status_code: int | None
    reason: str | None = None


def signature(secret: str, event_id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and HMAC-SHA256 of `{id}.{timestamp}.{body}`, as base64; the key is the base64 after `whsec_`."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = b".".join((event_id.encode(), str(timestamp).encode(), body))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def headers_of(secrets: Iterable[Secret], event_id: str, now: float, body: bytes) -> dict[str, str]:
    """The headers of a delivery at `now` (unix seconds), signed by every secret that is still good."""
    timestamp = int(now)
    good = [secret.value for secret in secrets if secret.until is None or secret.until > now]
    return {
        "content-type": "application/json",
        "user-agent": f"ModelForge/{VERSION}",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signature(secret, event_id, timestamp, body) for secret in good),
    }


class Sender:
    """Sends deliveries: each on a connection of its own, without proxies, cookies or redirects."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._session: aiohttp.ClientSession | None = None

    async def send(self, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        """Send one; what comes back is looked at no further than its status."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=CheckedResolver(), use_dns_cache=False, force_close=True, limit=0
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._seconds),
                auto_decompress=False,
            )
        try:
            check_literal(URL(url).host or "")
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                status = response.status
        except TimeoutError:
            return Answer(status_code=None, reason=f"no answer within {self._seconds:g} s")
        except Exception as error:  # noqa: BLE001 - whatever an endpoint makes of it, the rest goes on
            cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
            told = "" if isinstance(cause, AddressRefused) else f"{type(cause).__name__}: "
            reason = f"{told}{cause}".replace(url, shown_url(url)).replace(str(URL(url)), shown_url(url))
            return Answer(status_code=None, reason=reason[:300])
        if status in _SUCCESSES:
            return Answer(status_code=status)
        more = ", and redirects are not followed" if status in _REDIRECTS else ""
        return Answer(status_code=status, reason=f"it answered {status}{more}")

    async def close(self) -> None:
        """Let the connections go."""
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)
