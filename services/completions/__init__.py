"""Chat completions: the servicer, the pipeline of a call, and what wraps it.

Modules, in the order in which data flows:

    servicer             the gRPC methods
    relay_servicer       the internal gRPC method that carries many calls over one stream
    relayed_call         one of these calls
    snapshot             the configuration that a call uses to its end
    completions          the core's interface: record, admission by load, authentication
    completion_call      one call of an authenticated caller
    raw_calls            requests in the form of another API, before they are routed
    prompt_counts        tokens of prompts, as providers count them
    pipeline             a call in order: validate, resolve, admit, fail over, relay, settle
    caller_answer        the answer for a caller, made from what providers answer
    validation           ranges and forms of a request
    text_validation      the same of a text to be continued
    idempotency          calls with an idempotency key, which run once
    joined_repeats       calls that an agent repeats in its session
    raw_replays          answers that were passed on as they are, in the other form
    stored_calls         stored form of a call with an idempotency key
    reasoning_memory     sealed reasoning for clients that do not send it back
    prompt_marks         cache marks for prompts that come again
    canonical_arguments  arguments of tool calls in one form, to recognize them
    drains               answers that are read to their end without their caller
    fold                 a whole answer from the chunks of a stream
"""
