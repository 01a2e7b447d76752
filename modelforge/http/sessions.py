"""Browsers are signed in by a link that is good once, and get a cookie that no script and no other site can use."""

from typing import Annotated, Literal

from aiohttp import web
from msgspec import Meta, Struct

from modelforge.domain.access_token import Scope
from modelforge.http.plumbing.body import json_response, read_body, refuse_key
from modelforge.http.plumbing.gate import GATE
from modelforge.http.plumbing.identities import COOKIE, IDENTITY, SESSION_SECONDS
from modelforge.http.plumbing.keys import IDENTITIES, SETTINGS
from modelforge.http.plumbing.route import Route
from modelforge.http.plumbing.security_headers import PAGE_POLICY
from modelforge.http.plumbing.web_files import web_file
from modelforge.projections.jobs import iso

_LONGEST_CODE = 200


class Code(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands behind the # of the link."""

    code: Annotated[str, Meta(min_length=1, max_length=_LONGEST_CODE)]


class SignedIn(Struct, frozen=True, kw_only=True):
    """The browser has its cookie."""

    status: Literal["signed_in"] = "signed_in"


class SignedOut(Struct, frozen=True, kw_only=True):
    """The cookie is good for nothing any more."""

    status: Literal["signed_out"] = "signed_out"


class WhoAsks(Struct, frozen=True, kw_only=True):
    """Who a request is from. `name`: of the token, `owner` of the data directory's; null where nobody is asked for one.

    `signed_in`: by a link, in a browser. `token_required`: whether requests without a token are refused.
    """

    name: str | None
    scope: Scope
    expires_at: str | None
    signed_in: bool
    token_required: bool


class LoginLink(Struct, frozen=True, kw_only=True):
    """A path that signs one browser in, once, within the hour."""

    path: str


async def get_login_page(_request: web.Request) -> web.Response:
    """The page that a link opens: it sends the code behind the # of its address."""
    return web.Response(
        body=web_file("login.html"),
        content_type="text/html",
        charset="utf-8",
        headers={"Content-Security-Policy": PAGE_POLICY},
    )


async def get_login_script(_request: web.Request) -> web.Response:
    """The script of that page."""
    return web.Response(body=web_file("login.js"), content_type="text/javascript", charset="utf-8")


async def get_login_style(_request: web.Request) -> web.Response:
    """The style of that page."""
    return web.Response(body=web_file("login.css"), content_type="text/css", charset="utf-8")


async def open_session(request: web.Request) -> web.Response:
    """Sign a browser in by a code, which is good once; the answer has the cookie."""
    refuse_key(request, "A session")
    body = await read_body(request, Code)
    session = request.app[IDENTITIES].open_session(body.code)
    response = json_response(SignedIn())
    response.set_cookie(
        COOKIE,
        session,
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="Strict",
        secure=_is_encrypted(request),
    )
    return response


def _is_encrypted(request: web.Request) -> bool:
    """Whether the browser speaks TLS, with us or with the proxy on the way."""
    behind_proxy = request.app[SETTINGS].behind_proxy
    return request.secure or (behind_proxy and request.headers.get("X-Forwarded-Proto", "").lower() == "https")


async def get_session(request: web.Request) -> web.Response:
    """Who asks, what they may do, and until when."""
    identity = request[IDENTITY]
    return json_response(
        WhoAsks(
            name=identity.name,
            scope=identity.scope,
            expires_at=None if identity.expires_at is None else iso(round(identity.expires_at * 1_000_000)),
            signed_in=identity.session is not None,
            token_required=request.app[IDENTITIES].are_required,
        )
    )


async def close_session(request: web.Request) -> web.Response:
    """Sign a browser out."""
    session = request.app[IDENTITIES].close_session(request.cookies.get(COOKIE))
    request.app[GATE].end_session(session)
    response = json_response(SignedOut())
    response.del_cookie(COOKIE, httponly=True, samesite="Strict", secure=_is_encrypted(request))
    return response


async def make_login_link(request: web.Request) -> web.Response:
    """Make a link that signs one browser in."""
    refuse_key(request, "A link")
    return json_response(LoginLink(path=login_path(request.app[IDENTITIES].make_code(request[IDENTITY]))))


def login_path(code: str) -> str:
    """The path of a link. What stands behind the # is sent to no server, and so into no log."""
    return f"/login#{code}"


ROUTES = (
    Route(method="GET", path="/login", handler=get_login_page, answer=None, media=("text/html",), scope="open"),
    Route(
        method="GET", path="/login.js", handler=get_login_script, answer=None, media=("text/javascript",), scope="open"
    ),
    Route(method="GET", path="/login.css", handler=get_login_style, answer=None, media=("text/css",), scope="open"),
    Route(
        method="POST",
        path="/api/session",
        handler=open_session,
        body=Code,
        answer=SignedIn,
        errors=(401,),
        scope="open",
    ),
    Route(method="GET", path="/api/session", handler=get_session, answer=WhoAsks),
    Route(method="DELETE", path="/api/session", handler=close_session, answer=SignedOut, scope="open"),
    Route(method="POST", path="/api/login_links", handler=make_login_link, answer=LoginLink, scope="admin"),
)
