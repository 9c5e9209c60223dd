"""OpenAI's list of models.

Modules, in the order in which data flows:

    models_handler  handlers of the two routes
"""
