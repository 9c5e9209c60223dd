"""What reading a text that is no JSON raises."""

from __future__ import annotations

import msgspec

NOT_JSON = (msgspec.DecodeError, UnicodeError, RecursionError)
"""Whatever `msgspec.json.decode` raises, but for faults of memory: besides its own error, another
for strings that are not UTF-8 or have half a surrogate pair, and a third for deep nesting."""
