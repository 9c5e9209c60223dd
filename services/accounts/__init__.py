"""Services for accounts, keys and the ledger (operators), and for usage and own keys (callers).

Modules, in the order in which data flows:

    credential         bearer token that the operators' listener requires
    operator_services  the operators' services, and a channel to them
    proto_fields       validation and conversion of shared message fields
    audit_trail        changes with their entries in the audit log
    audit_servicer     AuditService
    account_messages   messages of accounts
    account_servicer   AccountService
    key_servicer       KeyService
    key_requests       fields of requests about keys
    key_messages       messages of keys, from and to the stored form
    key_versions       etags of keys
    key_views          states of keys and accounts in the audit log
    key_changes        changes of a key by an update mask
    key_maker          creation of keys and secrets
    ledger_servicer    LedgerService
    usage_servicer     UsageService
    key_reports        usage of one key
    tenant_servicer    TenantService
    own_keys           changes that the keys of an account make to its keys
    tenant_policy      rules for them
"""
