"""Lateness over time: a single late sample is normal, late samples without a break are overload."""

from __future__ import annotations

import math

from services.overload.thresholds import RECOVERY_S, SAMPLE_GAP_MAX_S


class LatenessTracker:
    """Tracks how long something takes, in samples."""

    def __init__(self, late_s: float, late_for_s: float) -> None:
        """Overload is samples above `late_s` for `late_for_s` without a break."""
        self.late_s = late_s
        """Threshold of late samples."""
        self.late_for_s = late_for_s
        """Time after which late samples without a break mean overload."""
        self.latest_s: float | None = None
        """The latest sample. None: there was none."""
        self._late_since = math.inf
        self._late_until = -math.inf
        self.is_late = False
        """Whether the latest sample was late."""
        self.is_sustained = False
        """Whether samples have been late without a break for long enough, up to the latest one."""
        self.is_overloaded = False
        """Whether lateness was sustained, and `RECOVERY_S` without a late sample have not passed
        since."""

    def sample(self, now: float, taken_s: float) -> None:
        """Take note of one sample."""
        self.latest_s = taken_s
        self.is_late = taken_s > self.late_s
        if self.is_late:
            is_new = now - self._late_until > SAMPLE_GAP_MAX_S
            self._late_since = now if is_new else min(self._late_since, now)
            self._late_until = now
        else:
            self._late_since = math.inf
        self.is_sustained = now - self._late_since >= self.late_for_s
        self.is_overloaded = self.is_overloaded or self.is_sustained
        self.recover(now)

    def recover(self, now: float) -> None:
        """End the overload if no sample has been late for `RECOVERY_S`."""
        if now - self._late_until >= RECOVERY_S:
            self.is_overloaded = False
