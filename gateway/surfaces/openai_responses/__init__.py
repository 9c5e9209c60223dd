"""OpenAI's Responses, without state.

Modules, in the order in which data flows:

    surface            the API's `Surface`
    raw                requests that the service may pass on as they are
    decode             requests, field by field
    state              fields that rely on objects that OpenAI keeps
    conversation       instructions and input items as messages
    input_items        items of a request
    assistant_turn     items of an earlier answer as one message
    parts              content parts of items
    tools              tools
    strict_schema      schemas that are enforced without being asked to
    tool_choice        choice among the tools
    namespaces         names of tools in namespaces
    options            text, reasoning, and further parts that an answer includes
    answer_form        options of the answer, and fields that it repeats
    responses_request  a decoded request, and the options of its answer
    render             events of a stream
    answer_output      items of an answer
    output_item        base of all items
    message_item       text and refusals
    reasoning_item     summaries, open reasoning and seals
    call_item          calls of tools
    response_events    events with their sequence numbers
    answer_members     members that the contract has no fields for
    response_object    all members of a response, and usage
    failure_codes      codes of failed responses
    render_whole       whole answers
    raw_failure        failures of streams that are passed on as they are
    errors             failures before anything was sent
"""
