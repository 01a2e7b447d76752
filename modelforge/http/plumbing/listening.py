"""Where the server listens: an address with TLS or without it, or a socket in the file system for its owner alone."""

import asyncio
import contextlib
import hashlib
import resource
import socket
import ssl
from pathlib import Path

from aiohttp import web
from msgspec import Struct

from modelforge.errors import SettingsInvalid
from modelforge.settings import Settings

_BACKLOG = 1024
_OWN_FILES = 512
_HANDSHAKE_SECONDS = 10.0
_OWNER_ONLY = 0o600


class Listener(Struct, frozen=True):
    """Where it listens. `certificate_sha256`: of the certificate that it shows, where it has TLS."""

    url: str
    certificate_sha256: str | None = None


def allow_open_files(connections: int) -> None:
    """Let this process have as many files open as so many connections take, and its own; or as many as it may.

    A process that has none left accepts nobody, and many systems give 1024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + _OWN_FILES  # and as many whose handshake is not done
    if soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def check_address(settings: Settings) -> None:
    """Refuse an address that is in use, before anything of a server is made.

    Raises:
        SettingsInvalid: it cannot be bound.
    """
    if settings.unix_socket is not None or settings.port == 0:
        return
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                trial.bind(address)
                trial.listen(1)  # of two that share a port by SO_REUSEADDR, the second fails here
    except OSError as error:
        raise _unusable(settings, error) from error


def _unusable(settings: Settings, error: OSError) -> SettingsInvalid:
    return SettingsInvalid(
        "The address cannot be used", f"{settings.host}:{settings.port}: {error.strerror}; try another --port."
    )


async def listen(runner: web.AppRunner, settings: Settings) -> Listener:
    """Begin to listen.

    Raises:
        SettingsInvalid: the address, the socket or the certificate cannot be used.
    """
    if settings.unix_socket is not None:
        await _listen_on_socket(runner, settings.unix_socket)
        return Listener(f"unix:{settings.unix_socket}")
    context = _tls_context(settings)
    site = _Site(runner, settings.host, settings.port, ssl_context=context, reuse_address=True, backlog=_BACKLOG)
    try:
        await site.start()
    except OSError as error:
        raise _unusable(settings, error) from error
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "http" if context is None else "https"
    certificate = None if settings.tls_cert is None else _fingerprint(settings.tls_cert)
    return Listener(f"{scheme}://{host}:{runner.addresses[0][1]}", certificate)


class _Site(web.TCPSite):
    """An address, where a handshake has its time too: until it is done, nobody knows of a connection."""

    async def start(self) -> None:
        """Begin to listen."""
        if self._ssl_context is None:
            await super().start()
            return
        await web.BaseSite.start(self)
        server = self._runner.server
        if server is None:
            raise AssertionError("the runner was set up")
        self._server = await asyncio.get_running_loop().create_server(
            server,
            self._host,
            self._port,
            ssl=self._ssl_context,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS,
            backlog=self._backlog,
            reuse_address=self._reuse_address,
        )


async def _listen_on_socket(runner: web.AppRunner, path: Path) -> None:
    try:
        listening = await asyncio.to_thread(_bound_socket, path)
    except OSError as error:
        raise SettingsInvalid("The socket cannot be used", f"{path}: {error.strerror or error}") from error
    await web.SockSite(runner, listening, backlog=_BACKLOG).start()


def _bound_socket(path: Path) -> socket.socket:
    """A socket that only its owner may connect to; one that a server left, and that nobody has, is replaced.

    Its folder may be anybody's: the mode is set before it listens, when nobody can connect yet.
    """
    if path.is_socket():
        if _is_answered(path):
            raise SettingsInvalid("Another server listens there", f"{path}: stop it, or use another --unix-socket.")
        path.unlink()
    with contextlib.ExitStack() as stack:
        bound = stack.enter_context(socket.socket(socket.AF_UNIX))
        bound.bind(str(path))
        path.chmod(_OWNER_ONLY)
        stack.pop_all()
    return bound


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as attempt:
        attempt.settimeout(1)
        try:
            attempt.connect(str(path))
        except OSError:
            return False
    return True


def _tls_context(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=_no_password)
    except (OSError, ValueError) as error:
        raise SettingsInvalid(
            "The certificate or its key cannot be used", f"{settings.tls_cert}, {settings.tls_key}: {error}"
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; use one that is not")


def _fingerprint(certificate: Path) -> str:
    """The SHA-256 of the first certificate in a file, which is the server's own."""
    text = certificate.read_text()
    end = "-----END CERTIFICATE-----"
    first = text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)]
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()
