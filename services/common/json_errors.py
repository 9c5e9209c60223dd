"""Exceptions of a text that is not JSON."""

from __future__ import annotations

import msgspec

NOT_JSON = (msgspec.DecodeError, UnicodeError, RecursionError)
"""All exceptions of `msgspec.json.decode` but MemoryError: its own, that of strings which are not
UTF-8 or have half a surrogate pair, and that of deep nesting."""
