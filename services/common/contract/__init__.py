"""Translation between the contract's messages and the domain, for both ends of gRPC.

The only package of `services.common` that imports the domain: the service translates at its gRPC
border, an edge in another process where it calls the service.

Modules, in the order in which data flows:

    message_table  a message and a struct with the same fields, translated by their descriptions
    chat           requests, whole answers and usage
    prompt_count   requests for the tokens of a prompt, and answers
    chat_events    events of a stream
    relay_codec    bytes of requests and answers in the frames of a relay
    embeddings     requests for embeddings, and answers
    models         public models
"""
