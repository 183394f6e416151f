"""The next variants to measure are promising, new, spread over the protein, and better than those found by chance."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from enzyme_stability.encoders.scales import SCALES
from enzyme_stability.errors import ConfigError, DataError
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variant import Substitution, Variant
from enzyme_stability.variants.acquisition import METHODS, next_shortlist
from enzyme_stability.variants.gaussian_process import fit_residuals

WILD_TYPE = "".join(np.random.default_rng(7).choice(list(AMINO_ACIDS), 60))


@cache
def singles() -> list[Variant]:
    return [
        Variant((Substitution(k + 1, own, other),))
        for k, own in enumerate(WILD_TYPE)
        for other in AMINO_ACIDS
        if other != own
    ]


def named(proposals: list[Any]) -> list[str]:
    return [str(one.variant) for one in proposals]


def three(means: list[float], sds: list[float], *, method: Any, size: int = 1, **settings: Any) -> list[int]:
    places = [0, 20, 40]
    variants = [singles()[19 * place] for place in places]
    measured = settings.pop("measured", {})
    covariance = settings.pop("covariance", None)
    found = next_shortlist(means, sds, covariance, variants, measured, method=method, size=size, **settings)
    return [one.index for one in found]


def test_greedy_goes_by_the_mean_and_expected_improvement_by_what_may_come() -> None:
    assert three([3.0, 2.0, 1.0], [0.1, 3.0, 0.1], method="greedy", size=3) == [0, 1, 2]
    measured = {singles()[100]: 3.0}
    assert three([3.0, 2.0, 1.0], [0.1, 3.0, 0.1], method="expected-improvement", measured=measured) == [1]


def test_expected_improvement_is_the_mean_of_what_is_above_the_incumbent() -> None:
    draws = np.maximum(np.random.default_rng(0).normal(1.0, 2.0, 400_000) - 2.5, 0).mean()
    arguments: Any = ([1.0], [2.0], None, singles()[:1])
    assert next_shortlist(*arguments, {singles()[40]: 2.5})[0].score == pytest.approx(draws, rel=0.02)
    below_zero = next_shortlist(*arguments, {singles()[40]: -8.0})[0].score
    assert below_zero == next_shortlist(*arguments, {})[0].score, "the wild type itself has 0"


def test_certain_values_and_hopeless_ones_are_still_put_in_order() -> None:
    assert three([-9.0, -5.0, -7.0], [0.0, 0.0, 0.0], method="expected-improvement", size=3) == [1, 2, 0]
    assert three([-900.0, -500.0, -700.0], [1e-3, 1e-3, 1e-3], method="expected-improvement", size=3) == [1, 2, 0]


@pytest.mark.parametrize("method", METHODS)
def test_what_was_measured_is_not_proposed_again_however_it_is_written(method: Any) -> None:
    variants = [*singles()[: 19 * 3 - 1], singles()[5], Variant(())]
    again = variants[20].substitutions[0]
    renumbered = Variant((Substitution(again.position + 26, again.wild_type, again.substitution),), 26)
    found = next_shortlist(
        np.linspace(5, -5, 58), np.ones(58), None, variants, {variants[0]: 4.0, renumbered: 3.0},
        method=method, size=99, per_position=99,
    )  # fmt: skip
    assert set(named(found)) == set(map(str, variants)) - {str(variants[0]), str(variants[20]), "WT"}
    assert len(found) == 54, "a candidate that comes twice is proposed once"


@pytest.mark.parametrize("method", METHODS)
def test_places_are_kept_residues_excluded_and_positions_shared_out(method: Any) -> None:
    variants = singles()
    means = np.random.default_rng(0).normal(0, 3, len(variants))
    found = next_shortlist(
        means,
        np.ones(len(means)),
        None,
        variants,
        {},
        method=method,
        size=80,
        per_position=2,
        keep={3, 4},
        exclude="CPW",
    )
    places = [one.variant.places[0] for one in found]
    assert len(found) == 80
    assert max(map(places.count, places)) == 2
    assert not {3, 4} & set(places)
    assert not set("CPW") & {one.variant.substitutions[0].substitution for one in found}


def test_every_position_of_a_variant_counts() -> None:
    one, two, three_ = (variant.substitutions[0] for variant in (singles()[0], singles()[19], singles()[38]))
    variants = [Variant((one, two)), Variant((two, three_)), Variant((three_,)), Variant((one,))]
    found = next_shortlist([4.0, 3.0, 2.0, 1.0], np.ones(4), None, variants, {}, method="greedy", per_position=1)
    assert [proposal.index for proposal in found] == [0, 2]


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides_the_draws_and_nothing_else_does(method: Any) -> None:
    rng = np.random.default_rng(0)
    variants = singles()[:190]
    root = rng.normal(size=(190, 190)) / 10
    arguments: Any = (rng.normal(size=190), np.sqrt(np.diag(root @ root.T)), root @ root.T, variants, {})
    first, second, other = (named(next_shortlist(*arguments, method=method, seed=seed, size=8)) for seed in (1, 1, 2))
    assert first == second
    assert (first != other) == (method == "thompson")


def test_a_joint_draw_keeps_together_what_goes_together() -> None:
    """The first two are one bet and the third another of the same odds: draws choose by bet, not by ticket."""
    covariance = np.array([[4.0, 4.0, 0.0], [4.0, 4.0, 0.0], [0.0, 0.0, 4.0]])
    means, sds = [0.0, 0.0, 0.0], [2.0, 2.0, 2.0]
    seeds = range(300)
    joint = [three(means, sds, method="thompson", covariance=covariance, seed=seed)[0] for seed in seeds]
    alone = [three(means, sds, method="thompson", seed=seed)[0] for seed in seeds]
    assert joint.count(2) / 300 == pytest.approx(1 / 2, abs=0.09)
    assert alone.count(2) / 300 == pytest.approx(1 / 3, abs=0.09)


def test_a_batch_does_not_bet_twice_on_the_same_thing() -> None:
    covariance = np.array([[4.0, 3.99, 0.0], [3.99, 4.0, 0.0], [0.0, 0.0, 4.0]])
    means, sds = [0.2, 0.1, 0.0], [2.0, 2.0, 2.0]
    before = covariance.copy()
    assert three(means, sds, method="expected-improvement", size=2, covariance=covariance) == [0, 2]
    assert three(means, sds, method="expected-improvement", size=2) == [0, 1]
    np.testing.assert_array_equal(covariance, before)


def test_candidates_without_an_estimate_are_passed_over() -> None:
    covariance = np.diag([1.0, np.nan, 1.0])
    for method in METHODS:
        found = three([1.0, np.nan, 0.0], [1.0, np.nan, 1.0], method=method, size=3, covariance=covariance)
        assert sorted(found) == [0, 2]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"method": "best"}, ConfigError, "'best' is unknown; there are: greedy, expected-improvement, thompson"),
        ({"size": 0}, ConfigError, "at least 1"),
        ({"per_position": 0}, ConfigError, "at least 1"),
        ({"seed": -1}, ConfigError, "at least 0"),
        ({"exclude": "CZ"}, ConfigError, "exclude names Z"),
        ({"keep": {0, 20, 40}}, DataError, "none of the 3 candidates is left"),
        ({"covariance": np.eye(2)}, DataError, "a covariance of each pair"),
        ({"covariance": -np.eye(3), "method": "thompson"}, DataError, "not that of any distribution"),
        ({"covariance": np.full((3, 3), np.inf)}, DataError, "not finite"),
    ],
)
def test_what_makes_no_sense_is_an_error_in_words(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        three([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], **{"method": "expected-improvement", **settings})


class Evolution:
    """A protein of 60 residues whose sites matter in their own ways, of which the model knows the half."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.candidates = singles()
        self.sites = self.random.normal(size=(60, 2))
        change = {
            name: np.array(
                [
                    SCALES[name][AMINO_ACIDS.index(one.substitution)] - SCALES[name][AMINO_ACIDS.index(one.wild_type)]
                    for one in (variant.substitutions[0] for variant in self.candidates)
                ]
            )
            for name in ("hydropathy", "volume")
        }
        place = np.array([variant.places[0] for variant in self.candidates])
        self.model = 0.3 * change["hydropathy"] - 0.02 * change["volume"] - 1
        own = self.random.normal(-1, 2, 60)[place] + 1.5 * self.sites[place, 0] * change["hydropathy"] / 3
        self.truth = self.model - 1.5 + own

    def measure(self, rows: list[int]) -> dict[Variant, float]:
        return {self.candidates[k]: float(self.truth[k] + self.random.normal(0, 1)) for k in rows}

    def best_after(self, method: str) -> float:
        """Mean true delta Tm of the best three of what is measured in three rounds of twelve after a first one."""
        rows = self.random.permutation(len(self.candidates))[:12].tolist()
        numbers = {variant: k for k, variant in enumerate(self.candidates)}
        measured = self.measure(rows)
        for _ in range(3):
            if method == "random":
                left = [k for k, variant in enumerate(self.candidates) if variant not in measured]
                rows = self.random.permutation(left)[:12].tolist()
            else:
                known = [numbers[variant] for variant in measured]
                correction = fit_residuals(
                    list(measured), list(measured.values()), self.model[known], self.sites, WILD_TYPE
                )
                mean, sd = correction.predict(self.candidates, self.model)
                top = np.argsort(-(mean + sd))[:300].tolist()
                asked: list[Variant] = [self.candidates[k] for k in top]
                choice: Any = method
                _, covariance = correction.joint(asked, self.model[top])
                found = next_shortlist(mean[top], sd[top], covariance, asked, measured, method=choice, size=12)
                rows = [top[one.index] for one in found]
            measured |= self.measure(rows)
        return float(np.sort([self.truth[numbers[variant]] for variant in measured])[-3:].mean())


def test_three_rounds_find_better_variants_than_random_choice_does() -> None:
    seeds = range(8)
    by_chance = [Evolution(seed).best_after("random") for seed in seeds]
    for method in METHODS:
        gain = np.subtract([Evolution(seed).best_after(method) for seed in seeds], by_chance)
        assert gain.mean() > 1, "degC"
        assert (gain > 0).sum() >= 7
