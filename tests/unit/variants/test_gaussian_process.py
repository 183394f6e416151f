"""A correction by measured variants follows the textbook, helps where there is something to learn, and says so then."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from enzyme_stability.encoders.scales import SCALES
from enzyme_stability.errors import ArtifactError, ConfigError, DataError, MissingDependencyError, VariantError
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variant import Substitution, Variant
from enzyme_stability.variants import gaussian_process
from enzyme_stability.variants.gaussian_process import AMPLITUDES, MAXIMUM_JOINT, VariantCorrection, fit_residuals

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
LENGTH = 60


class Landscape:
    """A made-up protein: the model knows half of what a substitution does, and nothing of how much a site matters."""

    def __init__(self, seed: int, *, noise: float = 1.0) -> None:
        self.random = np.random.default_rng(seed)
        self.wild_type = "".join(self.random.choice(list(AMINO_ACIDS), LENGTH))
        self.sites = self.random.normal(size=(LENGTH, 3))
        self.buried = 3 * np.tanh(self.sites[:, 0])
        self.special = self.random.normal(-1, 2, LENGTH)
        self.noise = noise

    def singles(self) -> list[Variant]:
        return [
            Variant((Substitution(k + 1, own, other),))
            for k, own in enumerate(self.wild_type)
            for other in AMINO_ACIDS
            if other != own
        ]

    def some(self, n: int) -> list[Variant]:
        everything = self.singles()
        return [everything[k] for k in self.random.permutation(len(everything))[:n]]

    def model(self, variants: list[Variant]) -> FloatArray:
        return self._sum(variants, lambda _, hydropathy, volume: 0.8 * hydropathy - 0.8 * volume + 1)

    def truth(self, variants: list[Variant]) -> FloatArray:
        return self._sum(
            variants, lambda k, hydropathy, volume: self.buried[k] * hydropathy + self.special[k] - 0.8 * volume - 2
        )

    def measure(self, variants: list[Variant]) -> FloatArray:
        return self.truth(variants) + self.random.normal(0, self.noise, len(variants))

    def learn(self, variants: list[Variant], **settings: Any) -> VariantCorrection:
        return fit_residuals(
            variants, self.measure(variants), self.model(variants), self.sites, self.wild_type, **settings
        )

    def _sum(self, variants: list[Variant], effect: Callable[[int, float, float], float]) -> FloatArray:
        def change(name: str, one: Substitution) -> float:
            scale = SCALES[name]
            return float(scale[AMINO_ACIDS.index(one.substitution)] - scale[AMINO_ACIDS.index(one.wild_type)])

        return np.array(
            [
                sum(effect(one.position - 1, change("hydropathy", one) / 3, change("volume", one) / 40) for one in v)
                for v in (variant.substitutions for variant in variants)
            ],
            dtype=float,
        )


def pairs(landscape: Landscape, n: int) -> list[Variant]:
    """Variants of one to four substitutions."""
    found = []
    for _ in range(n):
        places = sorted(landscape.random.choice(LENGTH, landscape.random.integers(1, 5), replace=False).tolist())
        own = landscape.wild_type
        found.append(Variant(tuple(Substitution(k + 1, own[k], "A" if own[k] != "A" else "G") for k in places)))
    return found


def without(correction: VariantCorrection, rows: list[int]) -> VariantCorrection:
    """The same correction, had some of the values not been measured."""
    kept = [k for k in range(len(correction.variants)) if k not in rows]
    return replace(
        correction,
        variants=tuple(correction.variants[k] for k in kept),
        **{name: getattr(correction, name)[kept] for name in gaussian_process._ARRAYS},
    )


def test_a_biased_model_is_corrected_and_the_gain_holds_for_variants_that_were_not_measured() -> None:
    for seed in range(4):
        landscape = Landscape(seed)
        correction = landscape.learn(landscape.some(100))
        assert correction.judgement.helps
        assert correction.judgement.verdict.startswith("helps: ")
        fresh = landscape.some(400)
        mean, _ = correction.predict(fresh, landscape.model(fresh))
        plain_error = np.abs(landscape.model(fresh) - landscape.truth(fresh)).mean()
        assert np.abs(mean - landscape.truth(fresh)).mean() < 0.75 * plain_error
        figures = correction.judgement.figures["one_out"]
        assert (figures["corrected"]["mae"] or 9) < 0.8 * (figures["plain"]["mae"] or 0)
        assert (figures["corrected"]["spearman"] or 0) > (figures["plain"]["spearman"] or 1) + 0.1


def test_pure_noise_is_not_said_to_help() -> None:
    said = []
    for seed in range(20):
        landscape = Landscape(seed)
        variants = landscape.some(30)
        noise = landscape.random.normal(-2, 4, 30)
        correction = fit_residuals(variants, noise, landscape.model(variants), landscape.sites, landscape.wild_type)
        said.append(correction.judgement.helps)
        verdict = correction.judgement.verdict
        assert said[-1] or (verdict.startswith("does not help") and verdict.endswith("keep the plain model"))
    assert sum(said) <= 1


def test_a_model_that_is_right_already_is_kept() -> None:
    landscape = Landscape(1)
    variants = landscape.some(60)
    correction = fit_residuals(
        variants, landscape.measure(variants), landscape.truth(variants), landscape.sites, landscape.wild_type
    )
    assert not correction.judgement.helps
    mean, _ = correction.predict(variants, landscape.truth(variants))
    assert np.abs(mean - landscape.truth(variants)).mean() < 1


def test_what_is_left_out_is_told_as_if_it_had_never_been_measured() -> None:
    landscape = Landscape(2)
    correction = landscape.learn(pairs(landscape, 25))
    n = 25
    places = [set(variant.places) for variant in correction.variants]
    shared = np.array([[bool(a & b) for a in places] for b in places])
    assert shared.sum() > n, "some share a position"
    for out in (np.eye(n, dtype=bool), shared):
        residual, deviation = correction._without(out)
        for k in range(n):
            other = without(correction, np.flatnonzero(out[k]).tolist())
            mean, sd = other.predict([correction.variants[k]], [correction.model_estimate[k]])
            assert residual[k] == pytest.approx(correction.measured[k] - mean[0], abs=1e-6)
            assert deviation[k] == pytest.approx(np.hypot(sd[0] / other.spread, correction.noise), abs=1e-6)
    expected = np.abs(correction._without(np.eye(n, dtype=bool))[0]).mean()
    assert correction.judgement.figures["one_out"]["corrected"]["mae"] == pytest.approx(expected)


def test_the_amplitudes_are_the_most_likely_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy import optimize

    asked: list[tuple[Callable[..., Any], FloatArray]] = []

    def noted(function: Callable[..., Any], start: FloatArray, **settings: Any) -> Any:
        found = optimize_minimize(function, start, **settings)
        asked.append((function, found.x))
        return found

    optimize_minimize = optimize.minimize
    monkeypatch.setattr(optimize, "minimize", noted)
    landscape = Landscape(3)
    variants = landscape.some(30)
    errors = np.where(np.arange(30) < 8, 3.0, np.nan)
    correction = landscape.learn(variants, standard_error=errors, repeats=1 + np.arange(30) % 3)
    unlikely = asked[0][0]
    best = np.log([*correction.amplitudes.values(), correction.noise])
    assert unlikely(best)[0] == pytest.approx(min(unlikely(x)[0] for _, x in asked))
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert unlikely(best + rng.normal(0, 0.3, best.size))[0] > unlikely(best)[0]
    elsewhere = best + 0.2
    for k in range(best.size):
        step = 1e-5 * np.eye(best.size)[k]
        slope = (unlikely(elsewhere + step)[0] - unlikely(elsewhere - step)[0]) / 2e-5
        assert unlikely(elsewhere)[1][k] == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_ten_measurements_do_not_carry_the_amplitudes_away() -> None:
    for seed in range(5):
        landscape = Landscape(seed, noise=4.0)
        correction = landscape.learn(landscape.some(10))
        for name, median in AMPLITUDES.items():
            assert median / 3 < correction.amplitudes[name] < 3 * median


def test_the_same_measurements_give_the_same_correction() -> None:
    first, second = (learned.to_dict() for learned in (Landscape(4).learn(Landscape(4).some(20)) for _ in range(2)))
    assert first == second


def test_predictions_after_json_are_the_very_same() -> None:
    landscape = Landscape(5)
    correction = landscape.learn(pairs(landscape, 20), standard_error=np.where(np.arange(20) < 3, 2.0, np.nan))
    again = VariantCorrection.from_dict(json.loads(json.dumps(correction.to_dict(), allow_nan=False)))
    fresh = landscape.some(50) + pairs(landscape, 20)
    estimate = landscape.model(fresh)
    np.testing.assert_array_equal(again.predict(fresh, estimate), correction.predict(fresh, estimate))
    assert again.judgement == correction.judgement
    assert again.variants == correction.variants


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("noise"),
        lambda d: d.update(noise=0),
        lambda d: d.update(noise="high"),
        lambda d: d.update(noise=float("nan")),
        lambda d: d.update(measured=d["measured"][:-1]),
        lambda d: d.update(measured=[None] * len(d["measured"])),
        lambda d: d.update(repeats=[0] * len(d["repeats"])),
        lambda d: d.update(sites="no base64!"),
        lambda d: d.update(sites=d["sites"][:-8]),
        lambda d: d.update(wild_type=""),
        lambda d: d.update(wild_type=None),
        lambda d: d.update(wild_type="W" * LENGTH),
        lambda d: d.update(variants=[["A1", 0]] * len(d["variants"])),
        lambda d: d.update(variants=5),
        lambda d: d.update(variants=[], measured=[], repeats=[], standard_error=[], model_estimate=[]),
        lambda d: d.update(amplitudes={}),
    ],
)
def test_a_damaged_correction_is_an_error_in_words(damage: Callable[[dict[str, Any]], Any]) -> None:
    landscape = Landscape(6)
    saved = landscape.learn(landscape.some(6)).to_dict()
    damage(saved)
    with pytest.raises(ArtifactError, match="damaged; learn it anew"):
        VariantCorrection.from_dict(saved)
    with pytest.raises(ArtifactError):
        VariantCorrection.from_dict([])  # type: ignore[arg-type]


def test_joint_predictions_have_the_single_ones_as_their_margins() -> None:
    landscape = Landscape(7)
    correction = landscape.learn(landscape.some(30) + pairs(landscape, 10))
    asked = [*landscape.some(30), *pairs(landscape, 10), Variant(())]
    estimate = landscape.model(asked)
    mean, sd = correction.predict(asked, estimate)
    joint_mean, covariance = correction.joint(asked, estimate)
    np.testing.assert_allclose(joint_mean, mean, atol=1e-9)
    np.testing.assert_allclose(np.sqrt(np.maximum(np.diag(covariance), 0)), sd, atol=1e-6)
    assert np.linalg.eigvalsh(covariance).min() > -1e-8
    assert (mean[-1], sd[-1]) == (0, 0), "the wild type is its own reference"


def test_a_variant_is_the_sum_of_its_substitutions() -> None:
    landscape = Landscape(8)
    correction = landscape.learn(landscape.some(40))
    first, second = Variant.parse(str(landscape.some(1)[0])), landscape.some(1)[0]
    assert first.places != second.places
    both = Variant(tuple(sorted(first.substitutions + second.substitutions)))
    mean, _ = correction.predict([first, second, both], landscape.model([first, second, both]))
    assert mean[2] == pytest.approx(mean[0] + mean[1])


def test_sums_over_blocks_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    landscape = Landscape(9)
    correction = landscape.learn(landscape.some(12) + pairs(landscape, 12))
    asked = landscape.some(40) + pairs(landscape, 15)
    whole = correction.predict(asked, landscape.model(asked))
    monkeypatch.setattr(gaussian_process, "_BLOCK", 60)
    monkeypatch.setattr(gaussian_process, "_VARIANTS", 7)
    np.testing.assert_allclose(correction.predict(asked, landscape.model(asked)), whole, atol=1e-9)


def test_intervals_of_new_measurements_cover_as_many_as_they_should() -> None:
    inside: list[float] = []
    for seed in range(12):
        landscape = Landscape(seed, noise=2.0)
        correction = landscape.learn(landscape.some(30))
        fresh = landscape.some(150)
        mean, sd = correction.predict(fresh, landscape.model(fresh))
        half = 1.645 * np.hypot(sd, correction.spread * correction.noise)
        inside.append(float((np.abs(landscape.measure(fresh) - mean) < half).mean()))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.05)


def test_the_nearer_to_a_measurement_the_surer() -> None:
    landscape = Landscape(10)
    own = landscape.wild_type[30]
    here = [Variant((Substitution(31, own, other),)) for other in AMINO_ACIDS if other != own]
    correction = landscape.learn(here[:15])
    far = Variant((Substitution(1, landscape.wild_type[0], "C" if landscape.wild_type[0] != "C" else "D"),))
    _, sd = correction.predict([here[0], here[17], far], [0.0, 0.0, 0.0])
    assert sd[0] < sd[1] < sd[2]
    assert set(correction.judgement.figures) == {"one_out"}, "nothing is left when the one position is left out"


def test_a_value_of_many_repeats_counts_for_more_and_one_of_a_large_error_for_less() -> None:
    landscape = Landscape(11)
    variants = landscape.some(8)
    model, measured = landscape.model(variants), landscape.model(variants)
    measured[0] += 10
    learned = fit_residuals(variants, measured, model, None, landscape.wild_type, noise=2.0)
    weighed = (
        replace(learned, repeats=np.array([50.0] + [1.0] * 7)),
        learned,
        replace(learned, standard_error=np.array([15.0] + [0.0] * 7)),
    )
    gain = [correction.predict(variants, model)[0][0] - model[0] for correction in weighed]
    assert gain[0] > gain[1] > gain[2] > 0


def test_unknown_sites_and_constant_descriptions_are_taken(recwarn: pytest.WarningsRecorder) -> None:
    landscape = Landscape(12)
    landscape.sites[:20] = np.nan
    landscape.sites[:, 1] = 4.0
    correction = landscape.learn(landscape.some(10))
    assert correction.sites.shape == (LENGTH, 2)
    assert np.isfinite(correction.predict(landscape.some(9), np.zeros(9))[0]).all()
    assert not recwarn.list


def test_equal_measurements_and_repeated_variants_are_no_problem() -> None:
    landscape = Landscape(13)
    variants = landscape.some(5)
    correction = fit_residuals(variants * 2, np.zeros(10), np.zeros(10), None, landscape.wild_type)
    mean, sd = correction.predict(variants, np.zeros(5))
    np.testing.assert_allclose(mean, 0)
    assert np.isfinite(sd).all()
    assert not correction.judgement.helps
    assert correction.judgement.figures["one_out"]["plain"]["spearman"] is None
    assert correction.predict([], [])[0].shape == (0,)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"variants": 4}, DataError, "4 measured variants; 5 to 1,000 make a correction"),
        ({"measured": np.full(9, np.nan)}, DataError, "measured must be 9 finite numbers"),
        ({"model_estimate": np.zeros(8)}, DataError, "model_estimate must be 9"),
        ({"model_estimate": ["x"] * 9}, DataError, "model_estimate must be 9"),
        ({"repeats": np.zeros(9)}, DataError, "above 0"),
        ({"noise": -1.0}, DataError, "above 0"),
        ({"sites": np.zeros((3, 2))}, DataError, "has 60 residues"),
        ({"wild_type": "W" * 60, "sites": None}, VariantError, "the wild type has"),
    ],
)
def test_what_cannot_be_learned_from_is_an_error_in_words(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    landscape = Landscape(14)
    variants = landscape.some(9)[: change.pop("variants", 9)]
    values: dict[str, Any] = {
        "measured": np.arange(len(variants)),
        "model_estimate": np.zeros(len(variants)),
        "sites": landscape.sites,
        "wild_type": landscape.wild_type,
    }
    with pytest.raises(error, match=message):
        fit_residuals(variants, **{**values, **change})


def test_too_many_variants_for_a_covariance_are_refused() -> None:
    landscape = Landscape(15)
    correction = landscape.learn(landscape.some(6))
    many = landscape.some(1) * (MAXIMUM_JOINT + 1)
    with pytest.raises(ConfigError, match=r"4,001 variants with 1 substitutions.*at most 4,000"):
        correction.joint(many, np.zeros(len(many)))


def test_learning_without_scipy_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    landscape = Landscape(16)
    variants = landscape.some(6)
    correction = landscape.learn(variants)
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingDependencyError, match=r"enzyme-stability\[train\]"):
        landscape.learn(variants)
    assert correction.predict(variants, np.zeros(6))[0].shape == (6,), "predictions go without"
