"""The landmark ridge is kernel ridge regression where it can be compared, and scales descriptors as it says."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge

from enzyme_stability.config import LandmarkRidge as Settings
from enzyme_stability.heads.landmark_ridge import CLIP, DescriptorScaling, LandmarkRidge, kernel

COLUMNS = {"amino_acids": slice(0, 20), "whole_chain": slice(20, 30), "dipeptides": slice(30, 430)}


def settings(landmarks: int = 1000, **changes: object) -> Settings:
    weights = {"amino_acids": 2.0, "whole_chain": 1.0, "dipeptides": 1.0}
    return Settings.model_validate({"block_weights": weights, "landmarks": landmarks, **changes})


def made_up_descriptors(n: int = 300, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    pairs = random.dirichlet(np.full(400, 0.5), n) ** 0.5
    return np.hstack([random.dirichlet(np.ones(20), n), random.normal(5, 40, (n, 10)), pairs]).astype(np.float32)


def made_up_points(n: int = 200, seed: int = 1) -> np.ndarray:
    """Points that survive the cut to half precision unchanged."""
    points = np.random.default_rng(seed).normal(0, 0.6, (n, 6))
    return points.astype(np.float16).astype(np.float32)


def squared_distances(scaled: np.ndarray) -> np.ndarray:
    return ((scaled[:, None].astype(float) - scaled[None].astype(float)) ** 2).sum(axis=2)


@pytest.mark.parametrize("penalty", [0.01, 0.05, 1.0])
def test_with_every_protein_a_landmark_it_is_plain_kernel_ridge(penalty: float) -> None:
    points, fresh = made_up_points(), made_up_points(50, seed=2)
    targets = np.column_stack([60 + 10 * np.sin(points[:, 0]), points[:, 1] > 0]).astype(float)
    ridge = LandmarkRidge.fit(points, targets, settings(penalty=penalty), np.random.default_rng(0))
    mean = targets.mean(axis=0)
    plain = KernelRidge(alpha=penalty, kernel="rbf", gamma=1.0).fit(points.astype(float), targets - mean)
    np.testing.assert_allclose(ridge.predict(fresh), plain.predict(fresh.astype(float)) + mean, atol=2e-3)


def test_kernel_is_one_at_home_and_falls_with_the_squared_distance() -> None:
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]], dtype=np.float32)
    expected = np.exp(-np.array([[0, 1, 5], [1, 0, 4], [5, 4, 0]], dtype=float))
    np.testing.assert_allclose(kernel(points, points.astype(np.float16)), expected, rtol=1e-12)


def test_landmarks_are_training_proteins_drawn_by_the_seed() -> None:
    points = made_up_points()
    targets = points[:, :1]
    first, again, other = (
        LandmarkRidge.fit(points, targets, settings(20), np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert first.landmarks.shape == (20, 6)
    known = {row.tobytes() for row in points.astype(np.float16)}
    assert {row.tobytes() for row in first.landmarks} <= known
    assert len({row.tobytes() for row in first.landmarks}) == 20
    assert first.landmarks.tobytes() == again.landmarks.tobytes()
    assert first.coefficients.tobytes() == again.coefficients.tobytes()
    assert first.landmarks.tobytes() != other.landmarks.tobytes()


def test_more_landmarks_come_nearer_to_plain_kernel_ridge() -> None:
    points, fresh = made_up_points(400), made_up_points(100, seed=5)
    target = np.sin(2 * points[:, :1]) + points[:, 1:2] ** 2
    plain = KernelRidge(alpha=0.05, kernel="rbf", gamma=1.0).fit(points.astype(float), target - target.mean())
    exact = plain.predict(fresh.astype(float)) + target.mean()

    def distance(landmarks: int) -> float:
        ridge = LandmarkRidge.fit(points, target, settings(landmarks), np.random.default_rng(0))
        return float(np.abs(ridge.predict(fresh) - exact).mean())

    assert distance(400) < distance(150) < distance(15)
    assert distance(400) < 1e-3


def test_repeated_proteins_do_not_make_the_fit_singular() -> None:
    points = np.repeat(made_up_points(20), 10, axis=0)
    ridge = LandmarkRidge.fit(points, points[:, :1], settings(), np.random.default_rng(0))
    np.testing.assert_allclose(ridge.predict(points), points[:, :1], atol=0.1)


def test_a_target_that_never_changes_is_predicted_as_it_is() -> None:
    points = made_up_points()
    ridge = LandmarkRidge.fit(points, np.full((len(points), 1), 57.25), settings(50), np.random.default_rng(0))
    np.testing.assert_allclose(ridge.predict(made_up_points(seed=9)), 57.25, atol=1e-4)


def test_far_from_every_landmark_the_answer_is_the_mean() -> None:
    points = made_up_points()
    targets = 60 + points[:, :1]
    ridge = LandmarkRidge.fit(points, targets, settings(50), np.random.default_rng(0))
    np.testing.assert_allclose(ridge.predict(points[:3] + 100), targets.mean(), rtol=1e-6)


def test_each_block_has_its_share_of_the_squared_distance() -> None:
    descriptors = made_up_descriptors()
    scaled = DescriptorScaling.fit(descriptors, COLUMNS, settings(sharpness=2.0))(descriptors)
    for block, weight in {"amino_acids": 2, "whole_chain": 1, "dipeptides": 1}.items():
        median = np.median(squared_distances(scaled[:, COLUMNS[block]]))
        assert median == pytest.approx(2.0 * weight / 4, rel=1e-3), block


def test_units_of_a_descriptor_do_not_matter() -> None:
    descriptors = made_up_descriptors()
    other_units = descriptors.copy()
    other_units[:, 25] = other_units[:, 25] * 1000 - 7
    first, second = (DescriptorScaling.fit(d, COLUMNS, settings())(d) for d in (descriptors, other_units))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_blocks_without_a_weight_are_left_out() -> None:
    descriptors = made_up_descriptors()
    scaling = DescriptorScaling.fit(descriptors, COLUMNS, settings(block_weights={"whole_chain": 1.0}))
    assert scaling(descriptors).shape == (300, 10)
    elsewhere = descriptors.copy()
    elsewhere[:, :20] = 1e6
    np.testing.assert_array_equal(scaling(elsewhere), scaling(descriptors))


def test_one_odd_value_cannot_carry_a_protein_out_of_reach() -> None:
    descriptors = made_up_descriptors()
    scaling = DescriptorScaling.fit(descriptors, COLUMNS, settings())
    odd = descriptors[:1].copy()
    odd[0, 22] = 1e9
    moved = float(((scaling(odd) - scaling(descriptors[:1])) ** 2).sum())
    assert 0 < moved <= (2 * CLIP * scaling.weight[22]) ** 2


def test_a_column_that_never_changes_stays_finite_and_adds_nothing() -> None:
    descriptors = made_up_descriptors()
    descriptors[:, 3] = 0.0
    scaling = DescriptorScaling.fit(descriptors, COLUMNS, settings())
    scaled = scaling(descriptors)
    assert np.isfinite(scaled).all()
    assert (scaled[:, 3] == 0).all()


@pytest.mark.parametrize("block", COLUMNS)
def test_a_block_that_never_changes_stays_finite_and_adds_nothing(block: str) -> None:
    # a table of point mutants of one protein: most share both termini
    descriptors = made_up_descriptors()
    descriptors[:, COLUMNS[block]] = descriptors[0, COLUMNS[block]]
    descriptors[:3, COLUMNS[block]] += 0.1
    scaling = DescriptorScaling.fit(descriptors, COLUMNS, settings())
    scaled = scaling(descriptors)
    assert scaling.weight.max() < 1e3  # rounding noise must not be blown up to a distance
    assert np.isfinite(scaled).all()
    assert np.isfinite(squared_distances(scaled)).all()
    tm = np.random.default_rng(6).normal(55, 8, (len(scaled), 1))
    ridge = LandmarkRidge.fit(scaled, tm, settings(50), np.random.default_rng(0))
    assert np.isfinite(ridge.predict(scaled)).all()
    assert np.isfinite(ridge.landmarks).all()
