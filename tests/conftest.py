"""What holds for all tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No test asserts a wall time, and so neither does a property. In CI a failure must come back when
# it is run again: the same examples each time.
settings.register_profile(
    "pomogator",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
    print_blob=True,
)
settings.load_profile("pomogator")
