"""The time left: by the speed of late, without the first stretch, with the pauses to come."""

import math

import pytest

from bigbigan.training import pace
from bigbigan.training.growing_schedule import GrowthSchedule
from bigbigan.training.pace import Pace, seconds_per_image, time_left


class Clock:
    """Stands for the performance counter."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(pace.time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def trained(clock, run: Pace, images: int, seconds: float) -> None:
    clock.now += seconds
    run.mark(run.seen + images)


def test_nothing_is_said_before_the_first_stretch(clock):
    run = Pace(0, 1000)
    assert run.seconds_left() is None and time_left(run.seconds_left()) == ""


def test_the_first_stretch_counts_only_alone(clock):
    """It compiles and fills caches. A resumed run begins at its own place."""
    run = Pace(400, 1000)
    trained(clock, run, 100, 50.0)
    assert run.seconds_left() == pytest.approx(500 * 0.5)
    trained(clock, run, 100, 10.0)
    assert run.seconds_left() == pytest.approx(400 * 0.1)


def test_a_change_of_speed_is_followed_within_a_few_stretches(clock):
    run = Pace(0, 10_000)
    for _ in range(20):
        trained(clock, run, 100, 1.0)
    for _ in range(8):
        trained(clock, run, 100, 4.0)
    assert run.seconds_left() == pytest.approx((10_000 - 2800) * 0.04, rel=0.1)


def test_pauses_are_no_training_and_come_again(clock):
    """An evaluation of 60 s every 500 images: two of them are still to come."""
    run = Pace(0, 2000)
    trained(clock, run, 500, 5.0)
    with run.pause("evaluation", 500):
        clock.now += 60
    trained(clock, run, 500, 5.0)
    assert run.seconds_left() == pytest.approx(1000 * 0.01 + 2 * 60)


def test_a_roll_back_begins_a_stretch(clock):
    run = Pace(0, 1000)
    trained(clock, run, 100, 1.0)
    trained(clock, run, 100, 1.0)
    clock.now += 500  # spent on what was rolled back
    run.restart(50)
    trained(clock, run, 100, 1.0)
    assert run.seconds_left() == pytest.approx(850 * 0.01)


def test_the_end_has_no_time_left(clock):
    run = Pace(0, 100)
    trained(clock, run, 100, 1.0)
    assert run.seconds_left() == 0 and time_left(0) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""), (math.inf, ""), (math.nan, ""), (-3, ""), (0.2, ""), (7, "7 s left"), (99, "99 s left"),
        (240, "4 min left"), (3599, "1 h 0 min left"), (5 * 3600 + 125, "5 h 2 min left"), (86_400, "24 h left"),
        (400_000, "4 d 15 h left"),
    ],
)  # fmt: skip
def test_words(seconds, text):
    assert time_left(seconds) == text
    assert time_left(seconds, growing=True) == (f"over {text}" if text else "")


def test_no_stretches():
    assert seconds_per_image([]) is None and seconds_per_image([(0, 1.0)]) is None


def test_when_a_growing_network_has_its_full_size():
    grown = GrowthSchedule(0, 2, 100, 50, (8,))
    assert grown.full_size_at == 300 and grown.level(299) < 2 and grown.level(300) == 2
    assert GrowthSchedule(2, 2, 0, 0, (8,)).full_size_at == 0
