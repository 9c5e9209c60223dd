"""Calls to the service over gRPC.

Modules, in the order in which data flows:

    grpc_backend           the edge's backend over the generated stubs
    relay_backend          the same, where completions share one stream
    relay_links            the links to all services behind a channel
    relay_link             one stream to one service
    relay_call             a call over it
    call_metadata          facts of a call to metadata, metadata to headers
    service_channel        the channel to a service in another process
    reconnecting_channel   a new channel when certificates change
    status_mapping         statuses to errors of the REST API
"""
