"""Parts of requests that all dialects share.

Modules, in the order in which data flows:

    history            messages and schemas in a form that the target accepts
    features           features that a model may lack
    parameters         parameters to send, by the dialect's names
    output_limits      limits of an answer's tokens
    thinking_request   reasoning that the caller asked for
    thinking           reasoning settings to send
    images             images by value or by reference
    data_files         files by value, taken apart
    other_types        parts, tools and formats of types unknown to the contract
    tool_types         types of tools that callers run, and the names of the others
    raw_json           JSON that is copied into a body unchanged
    unknown_members    members below the top level that no field has
    unseen_reasoning   reasoning that an answer does not show
    reasoning_details  reasoning in OpenRouter's form
    reasoning_state    opaque string that carries sealed reasoning between turns
"""
