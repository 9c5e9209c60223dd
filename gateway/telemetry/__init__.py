"""Metrics and traces of the edge.

Modules, in the order in which data flows:

    request_observer   observes each request: metrics and a span
    edge_metrics       the metrics of all components
    edge_metrics_page  the metrics page of an edge apart
    request_spans      the span of a request
    tracer             the tracer, if there is a collector
    span_export        export of spans to the collector
"""
