from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.accounts.tenant_policy import changed_scope, is_limited, is_within, new_scope
from services.errors import Failure
from services.storage.keys import KeyScope

_LIMIT = st.none() | st.integers(1, 4)
_SCOPES = st.builds(
    KeyScope,
    models=st.frozensets(st.sampled_from("abc")),
    expire_ms=_LIMIT,
    rpm=_LIMIT,
    tpm=_LIMIT,
    concurrency=_LIMIT,
    monthly_nano_usd=st.none() | st.integers(0, 4),
    administers_account=st.booleans(),
    strict=st.booleans(),
)
_ADMINS = _SCOPES.map(lambda scope: _with(scope, administers_account=True))


def _with(scope: KeyScope, **changes: Any) -> KeyScope:
    values = {name: getattr(scope, name) for name in KeyScope.__struct_fields__}
    return KeyScope(**{**values, **changes})


@given(caller=_ADMINS, wishes=st.lists(_SCOPES, max_size=5))
def test_no_chain_of_new_keys_has_more_than_its_first_maker(
    caller: KeyScope, wishes: Sequence[KeyScope]
) -> None:
    """Each key makes the next one, as far as it may: all are within the first."""
    maker = caller
    for wish in wishes:
        if not maker.administers_account:
            break
        try:
            maker = new_scope(wish, maker)
        except Failure:
            continue
        assert not is_limited(caller)
        assert is_within(maker, caller)


@given(caller=_ADMINS, before=_SCOPES, wanted=_SCOPES)
def test_no_change_gives_a_key_more_than_it_or_the_caller_had(
    caller: KeyScope, before: KeyScope, wanted: KeyScope
) -> None:
    """Each restriction stays within that of before or that of the caller's key."""
    try:
        after = changed_scope(wanted, before, caller)
    except Failure:
        return
    for name in ("models", "expire_ms", "rpm", "tpm", "concurrency", "monthly_nano_usd"):
        one = KeyScope(**{name: getattr(after, name)})
        bounds = [before] if is_limited(caller) else [before, caller]
        assert any(is_within(one, KeyScope(**{name: getattr(each, name)})) for each in bounds)


@given(caller=_ADMINS, before=_SCOPES)
def test_a_change_to_the_same_terms_is_allowed(caller: KeyScope, before: KeyScope) -> None:
    """A key that an operator gave more than the caller has keeps it when it is renamed."""
    assert changed_scope(before, before, caller) == before


@pytest.mark.parametrize(
    "caller",
    [KeyScope(rpm=1), KeyScope(tpm=1), KeyScope(concurrency=1), KeyScope(monthly_nano_usd=0)],
)
def test_a_key_with_limits_makes_no_keys(caller: KeyScope) -> None:
    """The new key would have the limits anew, also where it has the same."""
    with pytest.raises(Failure, match="limits of its own"):
        new_scope(caller, _with(caller, administers_account=True))


def test_what_a_new_key_does_not_restrict_is_restricted_as_in_its_maker() -> None:
    """Models and expiry are the maker's; limits may be set freely where the maker has none."""
    maker = KeyScope(models=frozenset("ab"), expire_ms=9, administers_account=True)

    made = new_scope(KeyScope(rpm=5), maker)

    assert made == KeyScope(models=frozenset("ab"), expire_ms=9, rpm=5)
