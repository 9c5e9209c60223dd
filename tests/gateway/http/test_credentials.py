from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.errors import ApiError
from gateway.http.credentials import api_key, unchecked_key
from tests.gateway.conftest import KEY

EITHER = ("x-api-key", "Authorization")


@pytest.mark.parametrize("value", [f"Bearer {KEY}", f"bearer  {KEY}", f"BEARER {KEY} "])
def test_a_bearer_key_is_read(value: str) -> None:
    """The scheme's case and spaces around the key do not matter."""
    assert api_key(CIMultiDict({"authorization": value})) == KEY


@pytest.mark.parametrize(
    "values",
    [[], [KEY], ["Bearer"], [f"Basic {KEY}"], ["Bearer x"], [f"Bearer {KEY}"] * 2],
    ids=["missing", "no scheme", "no key", "another scheme", "malformed", "repeated"],
)
def test_any_other_authorization_is_refused(values: list[str]) -> None:
    """The status is 401, and the service gets no call."""
    with pytest.raises(ApiError) as refused:
        api_key(CIMultiDict([("Authorization", value) for value in values]))
    assert refused.value.status == 401
    assert "`Authorization: Bearer sk-pg-...`" in refused.value.message


def test_a_refusal_names_the_header_at_fault() -> None:
    """Without any credential it names the first credential header."""
    for sent, named in (({}, "`x-api-key: sk-pg"), ({"Authorization": "x"}, "`Authorization: B")):
        with pytest.raises(ApiError, match="Invalid API key: ") as refused:
            api_key(CIMultiDict(sent), EITHER)
        assert named in refused.value.message


def test_the_first_credential_header_counts() -> None:
    """A header other than Authorization holds the key alone."""
    headers = CIMultiDict({"X-Api-Key": KEY, "Authorization": "Bearer x"})
    assert api_key(headers, EITHER) == KEY
    assert unchecked_key(headers, EITHER) == KEY
    del headers["X-Api-Key"]
    assert unchecked_key(headers, EITHER) == "x"
    with pytest.raises(ApiError):
        api_key(headers, EITHER)


@pytest.mark.parametrize("values", [["x"], [KEY, KEY], [f"Bearer {KEY}"], [""]])
def test_a_bad_key_alone_in_its_header_is_refused(values: list[str]) -> None:
    """The next credential header is not tried."""
    headers = CIMultiDict([("x-api-key", value) for value in values])
    headers["Authorization"] = f"Bearer {KEY}"
    with pytest.raises(ApiError):
        api_key(headers, EITHER)


def test_an_unchecked_key_tells_callers_apart() -> None:
    """It is the last word of the header, in any form; without a header it is empty."""
    assert unchecked_key(CIMultiDict({"Authorization": "Bearer k "})) == "k"
    assert unchecked_key(CIMultiDict({"Authorization": "Basic k"})) == "k"
    assert unchecked_key(CIMultiDict()) == ""
