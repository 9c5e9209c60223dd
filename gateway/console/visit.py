"""Visit: one request of a browser, with its session, language and theme."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from aiohttp import web

from gateway.config import EdgeConfig
from gateway.console.sessions import Session, Sessions
from gateway.console.texts import Texts, preferred
from gateway.errors import ApiError
from gateway.http.body import body_timeout
from gateway.http.middleware import REQUEST_ID
from gateway.http.trusted_proxies import TrustedProxies
from services.domain.error_reason import ErrorReason

COOKIE = "pomogator"
"""Followed by the port: browsers send a cookie to all ports of its host, also to other gateways."""
SECURE_PREFIX = "__Host-"
"""Browsers take such a cookie over TLS only, and from no other host."""
LANGUAGE_COOKIE = "console-language"
THEME_COOKIE = "console-theme"
THEMES = ("auto", "light", "dark")
CSRF_FIELD = "csrf"
CSRF_HEADER = "X-CSRF-Token"

FORM_BYTES_MAX = 64 * 1024
FIELDS_MAX = 64
_PORT = re.compile(r":([0-9]{1,5})$")
_FORM = "application/x-www-form-urlencoded"
_SAME = frozenset({"same-origin", "none"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A request, and what its pages depend on."""

    request: web.Request
    session: Session
    is_new: bool
    """Whether the browser does not have the session's cookie yet."""
    texts: Texts
    theme: str
    is_secure: bool
    """Whether the browser speaks TLS, to this edge or to a proxy in front of it."""

    @property
    def request_id(self) -> str:
        """ID of the request, also of the calls that it makes."""
        return self.request[REQUEST_ID]

    @property
    def origin(self) -> str:
        """Scheme and host as the browser sees them."""
        return f"{'https' if self.is_secure else 'http'}://{self.request.host}"

    @property
    def cookie_name(self) -> str:
        """Name of the cookie with the session."""
        return _cookie_name(self.request.host, is_secure=self.is_secure)


class Visits:
    """Reads visits from requests."""

    def __init__(self, sessions: Sessions, config: EdgeConfig, operators_token: str) -> None:
        self._sessions = sessions
        self._config = config
        self._proxies = TrustedProxies(config.trusted_proxies)
        self._operators_token = operators_token

    def of(self, request: web.Request) -> Visit:
        """Return the visit. Without a valid cookie it is that of a visitor."""
        is_secure = request.secure or self._proxies.says_https(
            request.remote or "", request.headers
        )
        cookies = request.cookies
        cookie = cookies.get(_cookie_name(request.host, is_secure=is_secure), "")
        theme = cookies.get(THEME_COOKIE, "")
        session = self._sessions.read(cookie, self._operators_token)
        return Visit(
            request=request,
            session=session or self._sessions.visitor(),
            is_new=session is None,
            texts=preferred(
                cookies.get(LANGUAGE_COOKIE, ""), request.headers.get("Accept-Language", "")
            ),
            theme=theme if theme in THEMES else THEMES[0],
            is_secure=is_secure,
        )

    async def form(self, visit: Visit) -> Mapping[str, str]:
        """Return the fields of a form of ours.

        Raises ApiError: it is not a form in UTF-8, is too large or slow, or comes from another
        site.
        """
        request = visit.request
        if request.content_type != _FORM:
            message = "This URL takes forms of the console only."
            raise ApiError(ErrorReason.UNSUPPORTED_MEDIA_TYPE, message)
        if request.content_length is None or request.content_length > FORM_BYTES_MAX:
            raise ApiError(ErrorReason.REQUEST_TOO_LARGE, "The form is too large.")
        try:
            async with asyncio.timeout(self._config.body_timeout_s):
                body = await request.read()
        except TimeoutError:
            raise body_timeout() from None
        fields = _fields(body)
        require_same_site(visit, fields.get(CSRF_FIELD, ""))
        return fields

    def keep(self, visit: Visit, response: web.StreamResponse) -> None:
        """Give the browser the session's cookie, if it has none or an old one.

        A page that refreshes itself is not in use: the idle timeout goes on.
        """
        by_script = visit.request.headers.get("Sec-Fetch-Dest") == "empty"
        if visit.is_new or (self._sessions.needs_renewal(visit.session) and not by_script):
            self.start(visit, visit.session, response)

    def end(self, visit: Visit, response: web.StreamResponse) -> None:
        """End the session of a visit, and give the browser that of a visitor."""
        if visit.session.role != "visitor":
            self._sessions.end(visit.session)
        self.start(visit, self._sessions.visitor(), response)

    def start(self, visit: Visit, session: Session, response: web.StreamResponse) -> None:
        """Give the browser the cookie of this session. It ends with the browser."""
        response.set_cookie(
            visit.cookie_name,
            self._sessions.to_cookie(session),
            path="/",
            secure=visit.is_secure,
            httponly=True,
            samesite="Strict",
        )


def _fields(body: bytes) -> Mapping[str, str]:
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX))
    except ValueError:
        message = "This is not a form of the console."
        raise ApiError(ErrorReason.INVALID_FIELD, message) from None


def _cookie_name(host: str, *, is_secure: bool) -> str:
    """Return the name for a host as the browser names it, with or without a port."""
    port = _PORT.search(host)
    name = f"{COOKIE}-{port[1]}" if port else COOKIE
    return f"{SECURE_PREFIX}{name}" if is_secure else name


def require_same_site(visit: Visit, csrf_token: str) -> None:
    """Refuse a change that another site asks for.

    Raises ApiError: the token is not the session's, or the request comes from another origin.
    """
    headers = visit.request.headers
    origin = headers.get("Origin")
    is_same = headers.get("Sec-Fetch-Site", "same-origin") in _SAME and (
        origin is None or origin.partition("://")[2] == visit.request.host
    )
    given = csrf_token.encode("utf-8", "surrogateescape")
    if not is_same or not hmac.compare_digest(given, visit.session.csrf_token.encode()):
        message = "The form is too old, or comes from another site. Load the page again."
        raise ApiError(ErrorReason.PERMISSION_DENIED, message)
