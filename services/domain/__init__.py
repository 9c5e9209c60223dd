"""Domain: the one language of edge and core. Knows neither protobuf nor HTTP.

Modules, in the order in which data flows:

    error_reason  reasons of failed calls
"""
