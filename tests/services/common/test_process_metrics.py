from __future__ import annotations

from services.common.process_metrics import ProcessMetrics


def test_a_process_shows_what_runs_and_how_it_is_doing() -> None:
    """Python's and the system's metrics, version, memory and the lag of the event loop."""
    process = ProcessMetrics("1.2.3")
    process.memory_used.set_function(lambda: 0.25)
    value = process.registry.get_sample_value

    assert value("pomogator_build_info", {"version": "1.2.3"}) == 1
    assert value("pomogator_memory_used_ratio") == 0.25
    assert value("pomogator_event_loop_lag_seconds_count") == 0
    assert value("process_open_fds")
    assert value("python_gc_collections_total", {"generation": "0"}) is not None
