"""ModelService: the models that a key may use.

Modules, in the order in which data flows:

    servicer     ModelService
    model_times  times at which models were first offered
"""
