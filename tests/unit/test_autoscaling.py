"""A simulated fleet that scales by its backlog; benchmarks/autoscaling.py prints its figures."""

from __future__ import annotations

import pytest

from benchmarks.autoscaling import Load, PodAutoscaler, Scaler, TargetTracking, simulate

BURST = Load(task_seconds=2, per_second=2, burst=6000)
STEADY = Load(task_seconds=2, per_second=37)


@pytest.mark.parametrize(
    ("scaler", "start_seconds", "seconds"),
    [(PodAutoscaler(), 45, 120), (TargetTracking(), 180, 360)],
)
def test_a_burst_is_followed_and_drained_without_flapping(
    scaler: Scaler, start_seconds: float, seconds: float
) -> None:
    found = simulate(BURST, scaler, hours=1.5, start_seconds=start_seconds)
    assert found.largest == 20
    assert found.drained_seconds is not None
    assert found.drained_seconds < seconds
    assert found.flaps == 0
    assert found.longest_queue < 10
    assert found.sizes[0] == 20
    assert max(found.sizes[1:]) <= 2


@pytest.mark.parametrize("scaler", [PodAutoscaler(), TargetTracking()])
def test_a_steady_load_has_a_steady_fleet_that_keeps_up(scaler: Scaler) -> None:
    found = simulate(STEADY, scaler, hours=1.5)
    assert found.flaps == 0
    assert found.longest_queue < 20
    assert found.sizes[-1] in {11, 12, 13}


def test_several_messages_for_each_thread_make_it_flap() -> None:
    """The simulation shows flapping where there is some."""
    found = simulate(STEADY, PodAutoscaler(per_thread=5), hours=1.5)
    assert found.flaps > 5
    assert found.longest_queue > 1000
