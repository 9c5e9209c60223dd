"""Pages: templates, rendered with what every page shows, and the headers of every page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version
from typing import NamedTuple, TypeAlias

import jinja2
from aiohttp import web

from gateway.console.assets import url_of
from gateway.console.figures import FIGURES, FILTERS
from gateway.console.sessions import Role
from gateway.console.texts import LANGUAGES
from gateway.console.visit import CSRF_FIELD, THEMES, Visit

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    # `no-referrer` would make the origin of forms `null`.
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}

AUDIT = "/console/audit"
"""Path of the audit log, which both roles have in their navigation."""

VERSION = version("pomogator")


Page: TypeAlias = Callable[[Visit], Awaitable[web.StreamResponse]]
Action: TypeAlias = Callable[[Visit, Mapping[str, str]], Awaitable[web.StreamResponse]]
"""Answers a form with these fields."""


class Entry(NamedTuple):
    """An entry of the navigation."""

    path: str
    text: str
    """Name of its text."""
    shortcut: str
    """The key that opens it after `g`."""


class Pages:
    """Renders the pages of one console."""

    def __init__(self, navigation: Mapping[Role, Sequence[Entry]]) -> None:
        """`navigation` has the entries of each role."""
        self._navigation = navigation
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader(__package__),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.filters.update(FILTERS)
        self._templates.globals.update(
            asset=url_of, languages=LANGUAGES, themes=THEMES, csrf_field=CSRF_FIELD, version=VERSION
        )

    def render(
        self, visit: Visit, template: str, *, status: int = 200, **values: object
    ) -> web.Response:
        """Return the page of a template with these values."""
        text = self._templates.get_template(f"{template}.html").render(
            visit=visit,
            session=visit.session,
            t=visit.texts,
            figures=FIGURES[visit.texts.language],
            path=visit.request.path,
            navigation=self._navigation.get(visit.session.role, ()),
            **values,
        )
        return web.Response(
            text=text, status=status, content_type="text/html", headers=SECURITY_HEADERS
        )


def redirect(path: str) -> web.Response:
    """Return an answer that makes the browser load another page of the console."""
    return web.Response(status=303, headers={"Location": path})
