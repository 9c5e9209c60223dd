"""Console: pages for the browsers of tenants and operators, under `/console`.

Modules, in the order in which data flows:

    console_app     application of a listener that serves the console alone
    console         routes, and what all pages have in common
    visit           a request of a browser, with its session, language and theme
    sessions        sessions in sealed cookies
    seal            text that a browser can neither read nor change
    sign_in_pages   start and end of a session
    sign_in_check   keys and the operators' token
    tenant_pages    pages about the account of a key
    usage_pages     charges by day and by model
    call_log_pages  calls to look through, one call, exports
    key_pages       keys of a tenant's account
    audit_pages     changes of accounts and keys
    operator_routes  paths of the operators' pages
    operator_pages  pages about all accounts and the ledger
    channel_pages   state, switches and tests of channels
    live_call_pages  calls in flight, and their abort
    process_pages   limits, load and configuration
    explain_pages   dry runs of calls
    form_fields     texts of a form as values
    key_terms       name, permissions and limits of a key
    account_calls   calls to the service with a tenant's key
    tenant_key_calls  calls to the service about the keys of an account
    operator_calls  calls to the service about accounts, keys and the ledger
    operation_calls  calls to the service about channels, live calls, limits and configuration
    audit_calls     calls to the service about changes
    call_log_calls  calls to the service for either, about the call log
    quick_starts    commands and programs for clients
    charts          bars of SVG pictures
    pages           templates and headers of every page
    texts           texts in all languages
    figures         amounts, counts and times in all languages
    assets          style sheets, scripts and icons

The pages are rendered here, from `templates/`, with small ES modules in `static/`: no step builds
them, no other host serves a part of them, and a person reads them as they are. Jinja2 escapes all
values by itself. The console asks the service as any caller does, with the key of the session or
for an operator, and stores nothing.
"""
