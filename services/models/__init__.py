"""ModelService: the models that a key may use.

Modules, in the order in which data flows:

    servicer     ModelService
    model_facts  facts of a model, as a caller sees them
    model_times  times at which models were first offered
"""
