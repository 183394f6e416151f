"""A correction is taken only if it holds, beyond noise, for families it was not learned from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from enzyme_stability.correction_choice import MINIMUM_CLUSTERS, Choice, MeasuredProteins, Raw, choose_correction
from enzyme_stability.errors import ConfigError


def measured_proteins(
    n: int = 80,
    *,
    shift: float = 0.0,
    slope: float = 1.0,
    noise: float = 3.0,
    seed: int = 0,
    clusters: int | None = None,
) -> MeasuredProteins:
    random = np.random.default_rng(seed)
    tm = random.uniform(40, 80, n)
    return MeasuredProteins(
        measured=60 + slope * (tm - 60) + shift + random.normal(0, noise, n),
        raw=Raw(tm, tm - 4, tm + 4),
        interval=np.stack([tm - 5, tm + 5]),
        frequencies=random.dirichlet(np.full(20, 8.0), n),
        growth_temperature=None,
        clusters=np.arange(n) if clusters is None else np.arange(n) % clusters,
    )


def chosen(proteins: MeasuredProteins, coverage: float = 0.9, seed: int = 0) -> Choice:
    return choose_correction(proteins, coverage, seed)[0]


@pytest.mark.parametrize(("change", "kinds"), [({"shift": 6.0}, {"offset"}), ({"slope": 1.6}, {"line", "composition"})])
def test_the_simplest_correction_that_does_is_taken(change: dict[str, float], kinds: set[str]) -> None:
    choice = chosen(measured_proteins(200, **change))
    assert choice.chosen in kinds
    assert "helped: cross-validated MAE" in choice.summary()
    assert f"* {choice.chosen}" in choice.summary()
    gain = choice.candidates[choice.chosen]["mae_minus_none"]
    assert gain is not None
    assert gain["low"] < gain["value"] < gain["high"] < 0


def test_measurements_of_the_same_kind_are_hardly_ever_corrected() -> None:
    choices = [chosen(measured_proteins(40, seed=seed)) for seed in range(40)]
    assert sum(choice.helped for choice in choices) <= 3
    kept = next(choice for choice in choices if not choice.helped)
    assert "did not help" in kept.summary()
    assert "kept as it was" in kept.summary()


def test_a_correction_that_only_holds_within_a_family_is_not_taken() -> None:
    proteins = measured_proteins(120, clusters=8, noise=0.5)
    signature = np.eye(20)[proteins.clusters]
    frequencies = 0.9 * proteins.frequencies + 0.1 * signature
    moved = np.random.default_rng(1).normal(0, 8, 8)[proteins.clusters]
    families = replace(proteins, frequencies=frequencies, measured=proteins.measured + moved - moved.mean())
    assert chosen(replace(families, clusters=np.arange(120))).chosen == "composition"
    assert chosen(families).chosen == "none"


def test_too_few_families_to_tell_keep_the_predictor() -> None:
    for count in (2, MINIMUM_CLUSTERS - 1):
        choice = chosen(measured_proteins(60, shift=20, clusters=count))
        assert choice.chosen == "none"
        assert f"{count} families are too few" in choice.summary()
    assert chosen(measured_proteins(60, shift=20, clusters=MINIMUM_CLUSTERS)).helped


def test_the_growth_temperature_is_tried_where_it_was_given() -> None:
    proteins = measured_proteins(150)
    growth = np.random.default_rng(2).uniform(15, 80, 150)
    told = replace(proteins, measured=proteins.measured + 0.5 * (growth - 45))
    assert "growth" not in chosen(told).candidates
    assert chosen(replace(told, growth_temperature=growth)).chosen == "growth"


def test_the_interval_holds_what_was_asked_for_on_new_proteins() -> None:
    before, after = [], []
    for seed in range(12):
        proteins = measured_proteins(100, shift=10, noise=6, seed=seed)
        choice, interval = choose_correction(proteins, 0.9, seed)
        new = measured_proteins(400, shift=10, noise=6, seed=seed + 1000)
        lower, upper = interval.interval(*new.corrected(proteins.fit(choice.chosen)), 0.9)
        after.append(((lower <= new.measured) & (new.measured <= upper)).mean())
        held = choice.coverage["before"]
        assert held is not None
        before.append(held["value"])
    assert np.mean(before) < 0.3
    assert 0.87 < np.mean(after) < 0.95


def test_twenty_proteins_are_enough_for_ninety_percent_and_not_for_more() -> None:
    proteins = measured_proteins(20)
    choice, interval = choose_correction(proteins, 0.9, 0)
    assert interval.factors(0.9)[0] > 0
    assert choice.coverage["after"] is not None
    with pytest.raises(ConfigError, match=r"highest it can promise is 0\.904"):
        choose_correction(proteins, 0.95, 0)
    relatives = replace(proteins, clusters=np.arange(20) // 2)
    assert chosen(relatives).coverage["after"] is None
    assert "unknown" in chosen(relatives).summary()


def test_figures_are_those_of_the_proteins_and_the_seed_decides_all_else() -> None:
    proteins = measured_proteins(60, shift=2)
    first, again = chosen(proteins), chosen(proteins)
    assert first == again
    none = first.candidates["none"]
    error = proteins.raw.tm - proteins.measured
    assert none["mae"] is not None
    assert none["mae"]["value"] == pytest.approx(np.abs(error).mean())
    assert none["bias"] is not None
    assert none["bias"]["value"] == pytest.approx(error.mean())
    assert none["r2"] is not None
    assert none["r2"]["value"] == pytest.approx(
        1 - (error**2).sum() / ((proteins.measured - proteins.measured.mean()) ** 2).sum()
    )
    assert none["mae_minus_none"] == {"value": 0, "low": 0, "high": 0}


def test_relatives_count_together_in_the_bounds() -> None:
    proteins = measured_proteins(100, noise=4)
    copies = replace(proteins.at(np.repeat(np.arange(20), 5)), clusters=np.repeat(np.arange(20), 5))
    apart = replace(copies, clusters=np.arange(100))

    def width(sample: MeasuredProteins) -> float:
        mae = chosen(sample).candidates["none"]["mae"]
        assert mae is not None
        return mae["high"] - mae["low"]

    assert width(copies) > 1.5 * width(apart)


def test_a_figure_without_meaning_is_left_out() -> None:
    proteins = measured_proteins(30)
    same = replace(proteins, raw=Raw(*(np.full(30, value) for value in (50.0, 45.0, 55.0))))
    choice = chosen(same)
    assert choice.candidates["none"]["spearman"] is None
    assert " - " in choice.summary()
