"""Services for accounts, keys and the ledger (operators), and for usage (callers).

Modules, in the order in which data flows:

    credential         bearer token that the operators' listener requires
    operator_services  the operators' services, and a channel to them
    proto_fields       validation and conversion of shared message fields
    account_servicer   AccountService
    key_servicer       KeyService
    key_messages       messages of keys, from and to the stored form
    key_changes        changes of a key by an update mask
    key_maker          creation and rotation of keys
    ledger_servicer    LedgerService
    usage_servicer     UsageService
"""
