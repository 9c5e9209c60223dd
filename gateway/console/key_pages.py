"""Key pages: the keys of a tenant's account."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping

from aiohttp import web

from gateway.console.askers import tenant_of
from gateway.console.form_fields import Fields, unknown_action
from gateway.console.key_terms import KeyTerms, overlap_s
from gateway.console.pages import Pages, redirect
from gateway.console.tenant_key_calls import TenantKeyCalls
from gateway.console.visit import Visit
from gateway.errors import ApiError
from services.domain.error_reason import ErrorReason

KEYS = "/console/keys"


class KeyPages:
    """Pages for a session with a key. Only a key that administers its account sees others."""

    def __init__(self, pages: Pages, calls: TenantKeyCalls) -> None:
        self._pages = pages
        self._calls = calls

    async def keys(self, visit: Visit) -> web.Response:
        """A page of keys."""
        try:
            return await self._keys(visit)
        except ApiError as error:
            if error.reason != ErrorReason.PERMISSION_DENIED:
                raise
            return self._pages.render(visit, "keys_denied", status=error.status, error=error)

    async def change(self, visit: Visit, form: Mapping[str, str]) -> web.Response:
        """Create, change, rotate or revoke a key. A new secret is on this page alone."""
        asker, fields = tenant_of(visit), Fields(form)
        key_id = fields.text("key_id")
        match fields.text("action"):
            case "create":
                terms, once_id = KeyTerms.of(fields), fields.text("once_id")
                made = await self._calls.create_key(asker, terms, once_id)
                is_old = not made.secret
                return await self._keys(visit, made.secret, made.key.key_id, made_before=is_old)
            case "change":
                await self._calls.change_key(asker, key_id, KeyTerms.of(fields))
            case "rotate":
                secret = await self._calls.rotate_key(asker, key_id, overlap_s(fields))
                return await self._keys(visit, secret, key_id)
            case "revoke":
                await self._calls.revoke_key(asker, key_id)
            case _:
                raise unknown_action()
        return redirect(KEYS)

    async def _keys(
        self, visit: Visit, secret: str = "", key_id: str = "", *, made_before: bool = False
    ) -> web.Response:
        """Show the keys, and a secret that was made by this request."""
        token = visit.request.query.get("after", "")
        return self._pages.render(
            visit,
            "own_keys",
            listed=await self._calls.keys(tenant_of(visit), token),
            url=KEYS,
            once_id=secrets.token_hex(16),
            secret=secret,
            key_id=key_id,
            made_before=made_before,
            now_s=int(time.time()),
        )
