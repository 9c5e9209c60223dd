"""REST for any service: what its `google.api.http` annotations say, and no code for it.

    template    path templates: `/v1/{name=shelves/*}:archive`
    bindings    the annotations, checked against the messages
    fields      text of a path or a query into a field
    forms       what proto JSON's own reader lets pass
    request     an HTTP request into the method's request
    answer      the method's answer into JSON, whole or line by line
    routes      all of it as routes of aiohttp

It follows https://github.com/googleapis/googleapis/blob/master/google/api/http.proto, and
grpc-gateway where that is silent:

- JSON is proto JSON, with the names of the proto. All fields without presence are printed,
  zeros too: an account of nothing says so. Requests may spell a field either way.
- What is neither in the path nor in the body is in the query: `?filter.state=OPEN&id=1&id=2`.
  A parameter that is unknown, that is given twice where there is one value, or that belongs
  elsewhere is an error, never ignored.
- A stream is one `{"result": ...}` a line, and `{"error": ...}` in the last if it fails.
- The most literal of several templates that match is the one that counts.

This is not the fast path: chat completions and models have handlers of their own.
"""

from __future__ import annotations

from gateway.transcoding.template_routes import routes

__all__ = ["routes"]
