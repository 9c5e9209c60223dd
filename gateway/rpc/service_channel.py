"""Channel to a service in another process, with its gRPC options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import grpc
import msgspec

from gateway.config import EdgeConfig
from gateway.rpc.reconnecting_channel import ReconnectingChannel
from services.common.call_names import VECTORS_BYTES_MAX
from services.common.frame_queue import MESSAGE_BYTES, RESPONSE_BYTES_MAX
from services.common.tls import TargetTls

# A request message holds pictures as base64, like the body, and is slightly larger.
_MESSAGE_OVER_BODY = 1.4

_RECEIVED_MAX = max(RESPONSE_BYTES_MAX, VECTORS_BYTES_MAX) + MESSAGE_BYTES
"""The largest message of a service: of a relay, with the headers of its frames, or vectors."""

PING_INTERVAL_MS = 2_000
"""The service closes the connection if pings come more often than it allows
(`services.rpc.listener`)."""
PING_TIMEOUT_MS = 2_500

CALLS_HEALTH = "pomogator.calls"
"""The name under which a service's health tells whether it accepts calls
(`services.rpc.health_service`)."""

_SERVICE_CONFIG = {"healthCheckConfig": {"serviceName": CALLS_HEALTH}}

_DEFAULTS = EdgeConfig()

_OPTIONS: Mapping[str, int | str] = {
    # Calls go in turn to all addresses of the target's name.
    "grpc.lb_policy_name": "round_robin",
    # A service that is about to stop becomes unhealthy first, and gets no more calls. Without
    # another healthy one, calls wait. https://grpc.io/docs/guides/health-checking
    "grpc.service_config": msgspec.json.encode(_SERVICE_CONFIG).decode(),
    # The name is resolved again when a connection ends; replicas are replaced faster than the
    # default of 30 s.
    "grpc.dns_min_time_between_resolutions_ms": 1_000,
    # gRPC reads `https_proxy` and the like, which are for providers.
    "grpc.enable_http_proxy": 0,
    # Buffers do not grow with the bandwidth: an unread stream would hold 4 MiB.
    "grpc.http2.bdp_probe": 0,
    "grpc.http2.lookahead_bytes": 16_384,
    # A frozen peer is detected within 4.5 s, instead of a minute; all three options are needed. A
    # busy peer still answers pings: gRPC's own threads do, without Python's global lock.
    "grpc.keepalive_time_ms": PING_INTERVAL_MS,
    "grpc.keepalive_timeout_ms": PING_TIMEOUT_MS,
    "grpc.http2.ping_timeout_ms": PING_TIMEOUT_MS,
    "grpc.http2.max_pings_without_data": 0,
    "grpc.keepalive_permit_without_calls": 1,
    # A completion that has started costs money, so it is not retried. Without a retry policy gRPC
    # repeats only calls that a stopping service has not started.
    "grpc.enable_retries": 1,
    # A restarted service gets calls within seconds, instead of minutes.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2_000,
}


def open_channel(
    target: str,
    config: EdgeConfig = _DEFAULTS,
    *,
    tls: TargetTls | None = None,
    extra_options: Sequence[tuple[str, str]] = (),
) -> grpc.aio.Channel:
    """Return a channel to `target`, such as `127.0.0.1:50051` or `unix:/run/pomogator.sock`.

    Without `tls` it is plain text; with `tls` it reconnects when the files change.
    `extra_options` are gRPC's. Raises OSError where the files of `tls` cannot be used.
    """
    # One message over the limit would end a relay with all of its calls.
    message_max = max(int(config.body_bytes_max * _MESSAGE_OVER_BODY), _RECEIVED_MAX)
    options = [
        *_OPTIONS.items(),
        ("grpc.max_send_message_length", message_max),
        ("grpc.max_receive_message_length", message_max),
        *extra_options,
    ]
    if tls is not None:
        return ReconnectingChannel(
            lambda: grpc.aio.secure_channel(target, tls.credentials(), options=options),
            lambda: tls.version,
        )
    return grpc.aio.insecure_channel(target, options=options)
