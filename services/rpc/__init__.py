"""The border to gRPC: listeners, the order of interceptors, statuses, health.

Modules, in the order in which data flows:
    listener           a server on a TCP address or a Unix socket
    local_channel      a channel to servicers of this process
    accept_batch       acceptance of many calls per turn of the event loop
    call_context       facts of a call beside its request: metadata, request ID, queue time
    field_paths        paths of fields at fault in the stubs' names
    field_count        the number of fields in an encoded message
    receptions         the number of requests that are received at a time
    large_requests     large requests: key, memory and fields before they are decoded
    failure_border     the outermost interceptor: failures to statuses
    reflection         server reflection in both versions
    client_authorizer  the interceptor that checks the names in clients' certificates
    paging             page sizes and page tokens of lists
    rpc_log            the interceptor that records calls of methods that are no completions
    health_service     the health service, and graceful shutdown as clients see it
"""
