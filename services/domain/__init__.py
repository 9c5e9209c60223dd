"""Domain: the one language of edge and core. Knows neither protobuf nor HTTP.

Modules, in the order in which data flows:

    call_options   facts of a call beside its request
    conversation   messages and their parts
    spec           the completion to generate
    plain_texts    requests with texts and frequent parameters alone
    raw_request    the same in the form of another API
    events         events of an answer
    usage          token usage
    completion     a whole answer
    prompt_count   the tokens of a prompt: request and answer
    embeddings     vectors of texts: request and answer
    model          public models
    error_reason   reasons of failed calls
    http_statuses  HTTP statuses of failed calls
"""
