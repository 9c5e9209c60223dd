"""Embeddings: the servicer, and the steps of a call.

Modules, in the order in which data flows:

    servicer             the gRPC method
    embedding_service    the core's interface: record, admission by load, authentication
    pipeline             a call in order: validate, resolve, admit, ask for each part, settle
    validation           ranges and forms of a request
    request_parts        a request in parts that a provider takes
    embedding_ticket     usage and settlement of an admitted call
    embedding_form       a part of the request in the form of each target
    stored_answers       stored form of a call with an idempotency key
"""
