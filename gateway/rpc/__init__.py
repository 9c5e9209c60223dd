"""Calls to the service over gRPC.

Modules, in the order in which data flows:

    call_metadata          headers to metadata and back, deadlines
    key_lookup             whether a key is valid, without a call that costs anything
    in_flight_calls        calls in flight, their limit and their drain
    service_channel        the channel to a service in another process
    reconnecting_channel   a new channel when certificates change
    status_mapping         statuses to errors of the REST API
"""
