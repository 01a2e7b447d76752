"""Where a delivery may go: what an address is refused for, when it is given and each time that it is looked up."""

import asyncio
import contextlib
import ipaddress
import socket
import threading

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from modelforge.errors import BadInput

_LONGEST = 2000
_METADATA = frozenset({"100.100.100.200", "fd00:ec2::254"})
"""Where clouds tell a machine its credentials, beside the link-local addresses that all the others have."""


class AddressRefused(OSError):
    """An address to which nothing is sent."""


def check_url(url: str) -> None:
    """Refuse what no delivery is sent to.

    Raises:
        BadInput: it is no http or https address, has a password in it, or leads to an address that is not for this.
    """
    try:
        parsed = URL(url)
        host, port = parsed.host, parsed.port
    except ValueError as error:
        raise _unusable(url, f"it cannot be read: {error}") from error
    if len(url) > _LONGEST or not url.isascii() or not url.isprintable() or " " in url:
        raise _unusable(url, f"it takes up to {_LONGEST} printable characters (ASCII)")
    if parsed.scheme not in {"http", "https"} or not host or not port:
        raise _unusable(url, "it takes http:// or https:// and a host")
    if parsed.raw_user is not None or parsed.raw_password is not None:
        raise _unusable(url, "a name or password in it would stand in the log")
    if parsed.raw_fragment:
        raise _unusable(url, "what stands behind a # is sent to nobody")
    try:
        check_literal(host)
    except AddressRefused as error:
        raise _unusable(url, str(error)) from error


def _unusable(url: str, why: str) -> BadInput:
    shown = url.partition("?")[0][:100] if "@" not in url else "…"
    return BadInput("The url cannot be used", f"{shown!r}: {why}.", field="url")


def check_literal(host: str) -> None:
    """Refuse a host that is itself an address to which nothing is sent; a name is looked at once it is resolved.

    Raises:
        AddressRefused: it is one, or is written as only some programs read it.
    """
    if ":" not in host and not host.replace(".", "").isdigit():
        return
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise AddressRefused(f"{host[:60]} is no address in its usual form") from error
    check_address(host)


def check_address(address: str) -> None:
    """Refuse an address that no endpoint has: of a link, of clouds' credentials, of many, of nobody.

    This machine and private networks are where the endpoints of a server of one's own are.

    Raises:
        AddressRefused: it is one.
    """
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or ipaddress.IPv6Address(int(parsed))  # without the name of a network card
    if parsed.is_loopback:
        return
    if parsed.is_link_local or str(parsed) in _METADATA:
        raise AddressRefused(f"{parsed} is of the link, where clouds keep credentials")
    if parsed.is_multicast or parsed.is_unspecified or parsed.is_reserved:
        raise AddressRefused(f"{parsed} is the address of no single machine")


class CheckedResolver(AbstractResolver):
    """Looks names up in a thread of their own each, which may hang, and refuses names that lead where nothing is sent.

    The connection goes to the address that was checked: a name that means another one a moment later does not matter.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host.

        Raises:
            OSError: it has none.
            AddressRefused: one of them is refused.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[list[ResolveResult]] = loop.create_future()

        def tell(found: list[ResolveResult] | None, error: Exception | None) -> None:
            if result.done():
                return
            if error is not None:
                result.set_exception(error)
            else:
                result.set_result(found or [])

        def look_up() -> None:
            found, failed = None, None
            try:
                found = _addresses_of(host, port, family)
            except Exception as error:  # noqa: BLE001 - whoever waits gets it
                failed = error
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(tell, found, failed)

        # One of asyncio's or `concurrent.futures` would be taken from the rest of the server, and hold up its end.
        threading.Thread(target=look_up, name="resolver", daemon=True).start()
        addresses = await result
        for address in addresses:
            check_address(address["host"])
        return addresses

    async def close(self) -> None:
        """Nothing is kept open."""


def _addresses_of(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    return [
        ResolveResult(
            hostname=host,
            host=str(address[0]),
            port=int(address[1]),
            family=kind,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for kind, _, protocol, _, address in found
    ]
