"""ModelService: the models that a key may use.

Modules, in the order in which data flows:

    servicer  ModelService
"""
