"""Console: pages for the browsers of tenants and operators, under `/console`.

Modules, in the order in which data flows:

    console_app       application of a listener that serves the console alone
    operator_access   what a console needs to serve operators
    console           routes, sessions and failures of all pages
    visit             a request of a browser, with its session, language and theme
    sessions          sessions in sealed cookies
    seal              text that a browser can neither read nor change
    sign_in_pages     start and end of a session
    sign_in_check     keys and the operators' token
    tenant_pages      pages about the account of a key
    usage_pages       charges by day and by model
    call_log_pages    calls to look through, one call, exports
    key_pages         keys of a tenant's account
    audit_pages       changes of accounts and keys
    operator_routes   paths of the operators' pages
    operator_pages    pages about all accounts and the ledger
    channel_pages     state, switches and tests of channels
    live_call_pages   calls in flight, and their abort
    process_pages     limits, load and configuration
    explain_pages     dry runs of calls
    form_fields       texts of a form as values
    key_terms         name, permissions and limits of a key
    askers            the tenant or operator of a visit, and calls to the service for them
    account_calls     usage of a tenant's account
    call_log_calls    calls about the call log
    quick_starts      commands and programs for clients
    charts            bars of SVG pictures
    pages             templates and headers of every page
    texts             texts in all languages
    figures           amounts, counts and times in all languages
    assets            style sheets, scripts and icons

The pages are rendered here, from `templates/`, with small ES modules in `static/`. There is no
build step, and no other host serves a part of them. Jinja2 escapes all values by itself. The
console calls the service as any caller does, with the key of the session or as an operator, and
stores nothing.

Its modules and Jinja2 are loaded only where a console is served: `python -X importtime -c "import
gateway.console.console_app"` shows what that costs.
"""
