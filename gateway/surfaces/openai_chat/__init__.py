"""OpenAI's chat completions.

Modules, in the order in which data flows:

    surface           the API's `Surface`
    decode            requests: most of them in one step
    decode_fields     any request, field by field
    extra_body        members of `extra_body` as fields of the request
    image_extraction  large images, cut out of the body
    messages          the conversation
    parts             parts of a message
    tools             tools, tool choice and response format
    renamed_fields    fields with several names, or another one in the spec
    reasoning         three vocabularies for how much a model thinks
    chat_request      a decoded request, and the options of its answer
    common_members    what chunks and whole answers have in common
    render            chunks of a stream
    render_whole      whole answers
"""
