"""Models that a key may use, in OpenAI's and OpenRouter's form or that of the client's API.

Modules, in the order in which data flows:

    model_members   members of a model, in every form
    models_handler  handler of the two routes
"""
