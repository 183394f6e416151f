"""How far a long computation is, as it is said where there is no terminal."""

from __future__ import annotations

import time

import pytest

from enzyme_stability import progress
from enzyme_stability.progress import Meter


@pytest.mark.parametrize("found", [0, 1, 40])
def test_the_rate_and_the_time_left_count_only_what_was_computed(found: int) -> None:
    meter = Meter(sequences=100, residues=10_000, report=lambda _: None)
    began = time.monotonic()
    meter.advance(found, found * 100)  # looked up, not computed
    for _ in range(20):
        meter.advance(1, 100)
    left = (80 - found) // 2  # 20 sequences took 10 s
    said = meter.line(began + 10)
    assert said.startswith(f"{20 + found} of 100 sequences embedded, 2.0 a second, about 0:00:")
    assert int(said.split(":")[-1].split()[0]) == pytest.approx(left, abs=1)


def test_a_line_is_said_now_and_then_and_not_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [0.0], list[str]()
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Meter(sequences=100, residues=100, report=said.append) as meter:
        for _ in range(100):
            now[0] += 1
            meter.advance(1, 1)
    assert len(said) == 3
