"""The REST edge: OpenAI's chat completions over HTTP in front of the gRPC service.

    app           routes, read from the contract's google.api.http annotations
    connection    aiohttp's server, with its defaults made safe
    middleware    the border: request ids, access log, every failure as JSON
    completions   the story of one completion: decode, call, render
    decode        OpenAI's JSON to our request, with messages, tools and images
    render, sse   our chunks to OpenAI's objects and their framing
    errors        reasons to HTTP statuses and bodies

The edge is stateless and holds no secret. It knows the generated stubs only: the
channel that it is given may be TCP, a Unix socket or the process's own service.
"""
