"""What every answer tells a browser: to run nothing of it, to show it in no frame, to keep it nowhere."""

from collections.abc import Mapping

from aiohttp import web
from multidict import CIMultiDict

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
"""A handler that sets one of these itself, as a page does its policy, is left to it."""
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""The policy of our own pages: what they load comes from here, and nothing stands in the page itself."""
_ONLY_TLS = "max-age=31536000"


def add_security_headers(headers: CIMultiDict[str], *, has_tls: bool = False) -> None:
    """Add what is not there yet, and say nothing of the software."""
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    if has_tls:
        headers.setdefault("Strict-Transport-Security", _ONLY_TLS)
    headers.pop("Server", None)


async def secure_answer(request: web.Request, response: web.StreamResponse) -> None:
    """Add them to an answer that is about to go out: a signal of the application, so that none is left out."""
    add_security_headers(response.headers, has_tls=request.secure)
