"""HTTP: connections, bodies and errors of all requests, whichever API they are for.

Modules, in the order in which data flows:

    runner              aiohttp's server with our connections
    acceptor            accepts many connections in a turn of the loop
    client_connection   aiohttp's connection, with safe defaults
    idle_sweep          closes idle connections early where connections run short
    fast_path           ordinary requests around aiohttp's parser and router
    request_urls        trailing slashes, HEAD, and what a 404 names
    middleware          error border: request ids, access log, every failure as JSON
    cors                answers that web pages of other origins may read
    trusted_proxies     addresses of clients behind proxies
    auth_throttle       429 for addresses with too many failures
    credentials         the API key of a request
    call_options        facts of a call in the headers of its request
    known_keys          keys that the service accepted lately
    body_admission      checks before and after a body is read: capacity, memory, key
    endpoint            a method and path that both ways serve
    exchange            one request and its reply, over either way
    body                JSON bodies, bounded in size and time
    strict_json         JSON that every reader understands in the same way
    reply               one answer, written straight to its connection
    error_answer        the form of errors, by path
    probes              liveness and readiness
    connection_metrics  metrics of client connections
"""
