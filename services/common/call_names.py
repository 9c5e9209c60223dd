"""Names and texts in the metadata and the errors of gRPC calls from edge to service."""

from __future__ import annotations

CHAT_SERVICE = "pomogator.chat.v1.ChatCompletionService"
"""Full name of the service of completions."""
COMPLETIONS = f"/{CHAT_SERVICE}/"
"""Beginning of the paths of its methods."""

EMBEDDING_SERVICE = "pomogator.embeddings.v1.EmbeddingService"
"""Full name of the service of embeddings."""

VECTORS_BYTES_MAX = 40 * 1024 * 1024
"""The most bytes of all vectors of a call, which are in one message."""

METERED = (COMPLETIONS, f"/{EMBEDDING_SERVICE}/")
"""Beginnings of the paths of methods whose calls have records, and are shed under load."""

REQUEST_ID_HEADER = "x-request-id"
OPERATOR_HEADER = "x-pomogator-operator"
"""From an operator's caller: the name of the person, for the audit log. Nothing proves it."""
IDEMPOTENCY_KEY_HEADER = "idempotency-key"

SURFACE_HEADER = "x-pomogator-surface"
"""From an edge: the API that its client has called, one of `SURFACES`."""
SURFACES = frozenset({"chat", "completions", "messages", "responses", "embeddings"})
GRPC_SURFACE = "grpc"
"""The API of callers that name none of `SURFACES`."""

TAGS_HEADER = "x-pomogator-tags"
"""Labels of a call, by the caller: `team=search,stage=test`."""

INSTANCE_HEADER = "x-pomogator-instance"
"""Initial metadata of a relay: the ID of the service's process."""

CREDIT_HEADER = "x-pomogator-credit"
"""Initial metadata of a relay: the number of messages that the edge may send at first."""

STRUCTS_HEADER = "x-pomogator-structs"
"""Metadata of a relay, both ways: the version of the sender's structs
(`services.common.contract.relay_codec`)."""

RELAYED_BYTES_MAX = 256 * 1024
"""The largest request that shares a stream of the relay. Others have a call of their own, for which
there is a budget of memory."""

RELAY_WINDOW_BYTES = 32_768
"""Room for responses that each call of a relay has at its start (`relay_service.proto`)."""

TIMEOUT_HEADER = "x-pomogator-timeout"
"""Seconds. From clients: how long they wait. To the service: the call's time limit at its start,
since gRPC tells only how much of it is left."""

STATUS_DETAILS = "grpc-status-details-bin"
"""The trailer with the `google.rpc.Status`: https://grpc.io/docs/guides/error/."""

ERROR_DOMAIN = "pomogator"
"""The `domain` of our `google.rpc.ErrorInfo`."""

INTERNAL_MESSAGE = "The gateway failed. Please report request {}."
"""Message of an error for a fault of ours. It shows only the request ID, for the operator."""

SCARCE = "scarce"
"""The `metadata` of ErrorInfo that names the resource of which an overloaded service is short."""

PROVIDER_CODE = "providerCode"
"""The `metadata` of ErrorInfo with the provider's own code for a fault in the request."""

LIMIT = "limit"
"""The `metadata` of ErrorInfo with the kind of the limit that is used up."""
LIMIT_VALUE = "limitValue"
"""The `metadata` of ErrorInfo with that limit."""
