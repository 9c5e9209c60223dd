"""Log handler that keeps what no request and no answer may cause."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from services.common.json_logs import JsonFormatter


class FaultLog(logging.Handler):
    """Keeps errors, exceptions, and records that cannot be written as lines."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(JsonFormatter())
        self.faults: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line as a process would, and keep it if it tells of a fault."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - the fault that is looked for
            self.faults.append(traceback.format_exc())
            return
        if record.levelno >= logging.ERROR or record.exc_info:
            error = record.exc_info[1] if record.exc_info else None
            shown = "".join(traceback.format_exception(error)) if error else ""
            self.faults.append(f"{line}\n{shown}")


@contextmanager
def fault_log() -> Iterator[FaultLog]:
    """Keep the faults of all loggers."""
    log, root = FaultLog(), logging.getLogger()
    level = root.level
    root.addHandler(log)
    root.setLevel(logging.INFO)
    try:
        yield log
    finally:
        root.removeHandler(log)
        root.setLevel(level)
