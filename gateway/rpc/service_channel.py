"""The way to a service in another process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import grpc
import msgspec

from gateway.config import EdgeConfig
from gateway.rpc.reconnecting_channel import FollowingChannel
from services.common.tls import TargetTls

# A request carries pictures as base64 text, and everything else about as it came.
_MESSAGE_OVER_BODY = 1.4

PING_EVERY_MS = 2_000
"""More often than the service allows (`services.rpc.listener`), and it would end the connection."""
PONG_WITHIN_MS = 2_500

WATCHED = "pomogator.calls"
"""What services say of whether they take calls (`services.rpc.health_service`)."""

_SERVICE_CONFIG = {"healthCheckConfig": {"serviceName": WATCHED}}

_DEFAULTS = EdgeConfig()

_OPTIONS: Mapping[str, int | str] = {
    # Calls go in turn to all addresses that the target's name has.
    "grpc.lb_policy_name": "round_robin",
    # A service that is about to stop says so, and gets no more calls before it does. Calls wait
    # where there is no other. https://grpc.io/docs/guides/health-checking
    "grpc.service_config": msgspec.json.encode(_SERVICE_CONFIG).decode(),
    # The name is asked again when a connection ends; replicas are replaced faster than every 30 s.
    "grpc.dns_min_time_between_resolutions_ms": 1_000,
    # Buffers do not grow with the bandwidth: unread, one stream would hold 4 MiB.
    "grpc.http2.bdp_probe": 0,
    "grpc.http2.lookahead_bytes": 16_384,
    # A peer that is frozen is found out in 4.5 s at most, and not in a minute: all three are
    # needed. One that is only busy answers pings: grpc's own threads do, without Python's lock.
    "grpc.keepalive_time_ms": PING_EVERY_MS,
    "grpc.keepalive_timeout_ms": PONG_WITHIN_MS,
    "grpc.http2.ping_timeout_ms": PONG_WITHIN_MS,
    "grpc.http2.max_pings_without_data": 0,
    "grpc.keepalive_permit_without_calls": 1,
    # A completion that was begun costs money: nobody begins it again unasked. There is no policy
    # for retries; so only calls go elsewhere that a service on its way out has not looked at.
    "grpc.enable_retries": 1,
    # A service that comes back is found within seconds, and not minutes.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2_000,
}


def open_channel(
    target: str,
    config: EdgeConfig = _DEFAULTS,
    *,
    tls: TargetTls | None = None,
    more: Sequence[tuple[str, str]] = (),
) -> grpc.aio.Channel:
    """A channel to `target`, such as `127.0.0.1:50051` or `unix:/run/pomogator.sock`.

    Without `tls` it is plain text; with it, replaced files are taken anew. `more` are options
    of gRPC. Raises OSError where the files of `tls` are no use.
    """
    message_max = int(config.body_bytes_max * _MESSAGE_OVER_BODY)
    options = [
        *_OPTIONS.items(),
        ("grpc.max_send_message_length", message_max),
        ("grpc.max_receive_message_length", message_max),
        *more,
    ]
    if tls is not None:
        return FollowingChannel(
            lambda: grpc.aio.secure_channel(target, tls.credentials(), options=options),
            lambda: tls.version,
        )
    return grpc.aio.insecure_channel(target, options=options)
