"""Sign-in pages: the start and the end of a session, language and theme."""

from __future__ import annotations

import re
from collections.abc import Mapping

from aiohttp import web

from gateway.console.pages import Pages, redirect
from gateway.console.sign_in_check import SignInCheck
from gateway.console.texts import LANGUAGES
from gateway.console.visit import LANGUAGE_COOKIE, THEME_COOKIE, THEMES, Visit, Visits
from gateway.errors import ApiError
from gateway.http.auth_throttle import AuthThrottle
from services.domain.error_reason import ErrorReason

SIGN_IN = "/console/sign-in"
_HOME = "/console"
_OWN_PATH = re.compile(r"/console(?:/[A-Za-z0-9._:-]+)*")
_YEAR_S = 365 * 24 * 3600


class SignInPages:
    """Pages for sessions of every role."""

    def __init__(
        self, pages: Pages, visits: Visits, check: SignInCheck, throttle: AuthThrottle
    ) -> None:
        self._pages = pages
        self._visits = visits
        self._check = check
        self._throttle = throttle

    async def show(self, visit: Visit) -> web.Response:
        """Ask for a key, or the operators' token."""
        if visit.session.role != "visitor":
            return redirect(_HOME)
        return self._form(visit, 200, "")

    async def enter(self, visit: Visit, form: Mapping[str, str]) -> web.Response:
        """Begin a session. A wrong key counts for the throttle of failed authentications."""
        key = form.get("key", "").strip()
        try:
            session = await self._check.begin(key, form.get("name", ""), visit.request_id)
        except ApiError as failure:
            request = visit.request
            error = self._throttle.throttled(failure, request.remote or "", request.headers)
            fault = "sign_in.wrong" if error.row.failed_auth else "sign_in.unavailable"
            if error.reason == ErrorReason.RATE_LIMIT_EXCEEDED:
                fault = "sign_in.throttled"
            response = self._form(visit, error.status, fault)
            response.headers.update(error.headers())
            return response
        response = redirect(_HOME)
        self._visits.start(visit, session, response)
        return response

    async def leave(self, visit: Visit, _: Mapping[str, str]) -> web.Response:
        """End the session."""
        return self.end(visit)

    def end(self, visit: Visit) -> web.Response:
        """End the session, and ask for a sign-in."""
        response = redirect(SIGN_IN)
        self._visits.end(visit, response)
        return response

    async def prefer(self, visit: Visit, form: Mapping[str, str]) -> web.Response:
        """Keep the choice of a language or a theme."""
        back = form.get("back", "")
        response = redirect(back if _OWN_PATH.fullmatch(back) else _HOME)
        for cookie, field, known in (
            (LANGUAGE_COOKIE, "language", LANGUAGES),
            (THEME_COOKIE, "theme", THEMES),
        ):
            if form.get(field) in known:
                response.set_cookie(
                    cookie,
                    form[field],
                    path=_HOME,
                    max_age=_YEAR_S,
                    secure=visit.is_secure,
                    httponly=True,
                    samesite="Strict",
                )
        return response

    def _form(self, visit: Visit, status: int, fault: str) -> web.Response:
        return self._pages.render(
            visit, "sign_in", status=status, fault=fault, takes_tokens=self._check.takes_tokens
        )
