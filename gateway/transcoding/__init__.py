"""Transcoding of HTTP and JSON to gRPC by `google.api.http`, without code for each method.

Modules, in the order in which data flows:

    template_routes    bindings as routes of aiohttp
    path_template      path templates: `/v1/keys/{key_id}:rotate`
    bindings           the annotations, checked against the messages
    transcoder         the handler: request, call, answer
    request_builder    an HTTP request into the method's request
    json_checks        checks of a body's JSON that Python's `json_format` leaves out
    json_scalars       scalars and well-known types, as strict as proto JSON
    field_values       text of a path or a query into a field
    field_masks        masks of updates
    response_encoder   the method's responses into JSON, whole or line by line
    openrouter_forms   responses in OpenRouter's form
    text_streams       streams of text

It follows https://github.com/googleapis/googleapis/blob/master/google/api/http.proto, and
grpc-gateway where that is silent:

- JSON is proto JSON, with the names of the proto. Fields without presence are always printed, also
  when they are zero: an account with a balance of zero shows it. Requests may use either spelling.
- Fields that are neither in the path nor in the body are in the query: `?filter.state=OPEN&id=1`.
  A parameter that is unknown, repeated for a single value, or set elsewhere is an error; so are,
  in the query and the body, a field under both of its names, and keys of a map that are the same.
- A `PATCH` without `update_mask` changes the fields that its body has.
- A request or response that is a wrapper, a time or another well-known type has its JSON form.
- A stream is one `{"result": ...}` a line, and `{"error": ...}` in the last line if it fails.
  Exports are plain text (`text_streams`): where one fails, the connection is closed early.
- Of several templates that match, the most literal one decides.

Chat completions and models have handlers of their own (`gateway.surfaces`).
"""

from __future__ import annotations

from gateway.transcoding.template_routes import routes

__all__ = ["routes"]
