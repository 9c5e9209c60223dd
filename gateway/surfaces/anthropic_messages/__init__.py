"""Anthropic's Messages.

Modules, in the order in which data flows:

    surface           the API's `Surface`
    raw               requests that the service may pass on as they are
    decode            requests, field by field
    conversation      messages and system instructions
    blocks            content blocks of a request
    sources           images and documents
    sealed_reasoning  signed and encrypted reasoning, both ways
    tools             tools, tool choice and the form of the answer
    thinking          reasoning and its effort
    messages_request  a decoded request, and the options of its answer
    answer_members    usage, citations and the end of an answer
    render            events of a stream
    thinking_blocks   reasoning in a stream
    block_events      blocks of a stream, one after the other
    render_whole      whole answers
    models_list       models, in pages
    errors            failures
"""
