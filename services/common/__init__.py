"""Facts and tools that edge and service share.

They import nothing else of ours, but for `contract`, which imports `services.domain`.

Modules, in the order in which data flows:

    config_tables        tables of the configuration file that both read
    console_secret       secret of console sessions
    process_settings     limits of the process, and its garbage collector
    heap                 thresholds of malloc
    addresses            HOST:PORT and other addresses, and whether they stay on this machine
    tls                  certificates of listeners and clients, read again when replaced
    header_names         form of header names, and those that callers cannot set
    request_headers      forms of request ID, idempotency key and bearer token
    key_format           form and checksum of API keys, beginning of their IDs
    call_names           metadata and error details between edge and service
    call_tags            labels of a call
    contract             messages of the contract as structs of the domain, and back
    frame_queue          frames of a relay that wait to be sent
    known_members        JSON split by the structs that read it
    json_places          places in JSON text, without decoding it
    json_values          number of values in JSON text
    json_errors          exceptions of a text that is not JSON
    seal_prefixes        prefixes of seals in requests of other APIs
    sealed_blocks        sealed reasoning as one string
    reasoning_fragments  items of `reasoning_details` from their pieces
    chat_names           suffix `-thinking` of models' names
    image_format         limits and checks of images
    fair_share           light callers and their spare capacity
    running_calls        calls in flight, and their drain
    retry_after          when refused callers return
    memory_budget        memory that large requests may take
    off_loop             reading of large requests in a thread
    money                amounts in US dollars
    json_logs            one line of JSON for each event
    log_handler          log lines to standard error, without blocking
    plain_metrics        counters, gauges and histograms
    process_metrics      the metrics of every process
    loop_lag             lag of the event loop
    metrics_page         `/metrics`, and probes

The edge may import this package, `services.domain` and no other part of `services`; its image holds
no other.
"""
