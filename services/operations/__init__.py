"""OperationsService: explanation of calls, channel status, configuration reload.

Modules, in the order in which data flows:

    servicer   OperationsService
    explainer  dry run of a call
    channels   status of channels
    channel_control  switches of channels
    configuration_view  configuration without secrets
"""
