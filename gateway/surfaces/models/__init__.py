"""Models that a key may use, in OpenAI's form or that of the client's API.

Modules, in the order in which data flows:

    models_handler  handler of the two routes
"""
