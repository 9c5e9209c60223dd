"""REST edge: OpenAI's chat completions and other APIs over HTTP, in front of the gRPC service.

Modules, in the order in which data flows:

    __main__       `python -m gateway`: an edge in a process of its own
    arguments      command line of an edge
    edge           an edge in a process of its own, from start to drain
    server         listeners of an edge
    app            public application: routes of surfaces, models, transcoded methods and probes
    operators_app  operators' application, behind their token
    http           connections, bodies, error border, fast path
    surfaces       inbound APIs: decoding of requests, rendering of answers
    console        pages for browsers
    transcoding    REST for methods without code of their own, from their annotations
    openapi        description of all routes
    rpc            the backend over gRPC: calls to the service, their deadlines and errors
    overload       admission of connections and calls, load shedding
    telemetry      metrics, traces, access log
    backend        interface of the service behind the edge
    config         limits and times of an edge
    errors         error reasons as HTTP statuses and bodies

The edge is stateless and holds no secret. It imports `services.domain`, `services.common`,
and the generated code where it calls a service over gRPC.
"""
