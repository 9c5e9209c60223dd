"""What holds for all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# No test asserts a wall time, and so no property has a deadline. In CI a failure must come back
# when it is run again: the same examples each time.
settings.register_profile("developer", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "developer")
