"""History and schemas of a request in a form that its target accepts.

Modules, in the order in which data flows:

    legal           the whole pass, for one target
    tool_results    results of tool calls, one for each
    tool_call_ids   IDs of tool calls
    instructions    system and developer messages that follow others
    turns           order of the user's, the assistant's and the tools' messages
    merging         several messages of one role as one
    reasoning       reasoning of earlier turns
    signatures      signatures of tool calls
    tool_schemas    top level of tools' schemas
    schemas         schemas that an answer is held to

The rules are data: fields of `services.capabilities.Capabilities`. The content of a conversation is
kept. Each change gets a note; where something is lost, a strict request is refused.
"""
