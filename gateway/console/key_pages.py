"""Key pages: the keys of a tenant's account."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping

import grpc
from aiohttp import web
from pomogator.accounts.v1 import key_service_pb2 as keys_pb
from pomogator.tenants.v1 import tenant_service_pb2 as pb
from pomogator.tenants.v1.tenant_service_pb2_grpc import TenantServiceStub

from gateway.console.askers import ask, tenant_of
from gateway.console.form_fields import Fields, unknown_action
from gateway.console.key_terms import KeyTerms, overlap_of
from gateway.console.pages import Pages, redirect
from gateway.console.visit import Visit
from gateway.errors import ApiError
from services.domain.error_reason import ErrorReason

KEYS = "/console/keys"
PAGE_SIZE = 100


class KeyPages:
    """Pages for a session with a key. Only a key that administers its account sees others."""

    def __init__(self, pages: Pages, channel: grpc.aio.Channel) -> None:
        self._pages = pages
        self._tenants = TenantServiceStub(channel)

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
                terms = KeyTerms.of(fields)
                new = pb.CreateKeyRequest(
                    display_name=terms.display_name,
                    scope=terms.scope,
                    request_id=fields.text("once_id"),
                )
                made = await ask(self._tenants.CreateKey, new, asker)
                is_old = not made.secret
                return await self._keys(visit, made.secret, made.key.key_id, made_before=is_old)
            case "change":
                name, scope, changed = KeyTerms.of(fields)
                key = keys_pb.Key(key_id=key_id, display_name=name, scope=scope)
                change = pb.UpdateKeyRequest(key=key, update_mask=changed)
                await ask(self._tenants.UpdateKey, change, asker)
            case "rotate":
                rotation = pb.RotateKeyRequest(key_id=key_id, overlap=overlap_of(fields))
                secret = (await ask(self._tenants.RotateKey, rotation, asker)).secret
                return await self._keys(visit, secret, key_id)
            case "revoke":
                await ask(self._tenants.RevokeKey, pb.RevokeKeyRequest(key_id=key_id), asker)
            case _:
                raise unknown_action()
        return redirect(KEYS)

    async def _keys(
        self, visit: Visit, secret: str = "", key_id: str = "", *, made_before: bool = False
    ) -> web.Response:
        """Show the keys, and a secret that was made by this request."""
        token = visit.request.query.get("after", "")
        request = pb.ListKeysRequest(page_size=PAGE_SIZE, page_token=token)
        return self._pages.render(
            visit,
            "own_keys",
            listed=await ask(self._tenants.ListKeys, request, tenant_of(visit)),
            url=KEYS,
            once_id=secrets.token_hex(16),
            secret=secret,
            key_id=key_id,
            made_before=made_before,
            now_s=int(time.time()),
        )
