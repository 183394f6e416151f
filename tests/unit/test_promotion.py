"""Which versions of a predictor are promoted, and which are not."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from enzyme_stability import Predictor, cli, promotion
from enzyme_stability.config.promotion import PromotionTerms
from enzyme_stability.errors import ConfigError, DataError
from enzyme_stability.promotion import add, promote, set_benchmark
from enzyme_stability.registry import Registry


@pytest.fixture(scope="session")
def measured(made_up_proteins: pd.DataFrame, builtin: Predictor) -> pd.DataFrame:
    """Proteins whose Tm is what ``builtin`` says of them, give or take: no other predictor is better on these."""
    some = made_up_proteins[::2].reset_index(drop=True)
    rows = builtin.predict(some["sequence"])
    tm, lower, upper = (
        np.array([getattr(row, name) for row in rows], dtype=float)
        for name in ("tm_celsius", "tm_lower_celsius", "tm_upper_celsius")
    )
    noise = np.random.default_rng(5).normal(0, 0.5, tm.size)
    return some[["id", "sequence"]].assign(tm_celsius=tm + noise * np.where(noise < 0, tm - lower, upper - tm))


@pytest.fixture
def registry(tmp_path: Path, measured: pd.DataFrame) -> Registry:
    """With two versions of one predictor, the first of which is the better one."""
    made = Registry(tmp_path / "registry")
    for model in ("builtin", "tm50"):
        add(made, model, "mine")
    set_benchmark(made, "mine", {"measured": measured}, PromotionTerms(most_times_slower=10))
    return made


def failed(verdict: promotion.Verdict) -> set[str]:
    return {check.name for check in verdict.checks if not check.passed}


def test_a_worse_version_is_refused_and_a_good_one_taken(registry: Registry) -> None:
    assert promote(registry, "mine", 1, "production").passed
    verdict = promote(registry, "mine", 2, "production")
    assert "error on measured" in failed(verdict)
    assert verdict.compared_with == 1
    now = registry.alias("mine", "production")
    assert now is not None
    assert now.version == 1
    written = json.loads(Path(verdict.record).read_text())
    assert (written["passed"], written["version"]["number"], written["compared_with"]) == (False, 2, 1)


def test_an_alias_without_a_version_is_compared_with_production(registry: Registry) -> None:
    promote(registry, "mine", 1, "production")
    assert "error on measured" in failed(promote(registry, "mine", 2, "staging"))
    assert registry.alias("mine", "staging") is None


def test_a_reason_promotes_what_failed_and_is_kept(registry: Registry) -> None:
    promote(registry, "mine", 1, "production")
    verdict = promote(registry, "mine", 2, "production", override="the first one is withdrawn")
    assert not verdict.passed
    assert registry.alias("mine", "production").version == 2  # type: ignore[union-attr]
    assert json.loads(Path(verdict.record).read_text())["override"] == "the first one is withdrawn"


def test_a_better_version_takes_the_place_of_a_worse_one(registry: Registry) -> None:
    promote(registry, "mine", 2, "production", override="to begin with")
    assert promote(registry, "mine", 1, "production").passed
    assert registry.alias("mine", "production").version == 1  # type: ignore[union-attr]


def test_intervals_that_hold_too_little_are_refused(registry: Registry, measured: pd.DataFrame) -> None:
    tm = np.mean(measured["tm_celsius"]) + 3 * (measured["tm_celsius"] - np.mean(measured["tm_celsius"]))
    set_benchmark(registry, "mine", {"stretched": measured.assign(tm_celsius=tm)}, PromotionTerms())
    assert failed(promote(registry, "mine", 1, "staging")) == {"coverage on stretched"}


def test_an_order_no_better_than_chance_is_refused(registry: Registry, measured: pd.DataFrame) -> None:
    shuffled = measured.assign(tm_celsius=measured["tm_celsius"].sample(frac=1, random_state=3).to_numpy())
    set_benchmark(registry, "mine", {"shuffled": shuffled}, PromotionTerms(lowest_coverage=0))
    assert failed(promote(registry, "mine", 1, "staging")) == {"ranking on shuffled"}


class Odd(Predictor):
    """Answers that depend on the batch, late."""

    def _predict_chunk(self, *arguments: Any) -> list[Any]:
        rows = super()._predict_chunk(*arguments)
        if self.manifest["name"] == "builtin":
            return rows
        time.sleep(0.1)
        return [replace(row, tm_celsius=row.tm_celsius + 0.02 * (k > 0)) for k, row in enumerate(rows)]


def test_answers_that_depend_on_the_batch_and_come_late_are_refused(
    registry: Registry, measured: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_benchmark(registry, "mine", {"measured": measured}, PromotionTerms(most_lost_celsius=100, lowest_coverage=0))
    promote(registry, "mine", 1, "production")
    monkeypatch.setattr(promotion, "Predictor", Odd)
    assert {"invariance", "speed"} <= failed(promote(registry, "mine", 2, "production"))


def test_files_that_were_changed_in_the_registry_are_refused(registry: Registry) -> None:
    manifest = Path(registry.place("mine", 1)) / "predictor.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert failed(promote(registry, "mine", 1, "production")) == {"files"}


def test_nothing_is_promoted_without_a_benchmark(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    add(registry, "tm50", "mine")
    with pytest.raises(ConfigError, match="registry benchmark mine"):
        promote(registry, "mine", 1, "production")


def test_a_benchmark_needs_proteins_with_melting_temperatures(registry: Registry, measured: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="at least 30"):
        set_benchmark(registry, "mine", {"small": measured.head(29)}, PromotionTerms())
    with pytest.raises(DataError, match="no melting temperatures"):
        set_benchmark(registry, "mine", {"other": measured.assign(tm_celsius=np.nan)}, PromotionTerms())


def test_the_commands_from_a_predictor_to_production_and_back(tmp_path: Path, measured: pd.DataFrame) -> None:
    table = tmp_path / "measured.csv"
    measured.to_csv(table, index=False)
    shelf = ["--registry", str(tmp_path / "registry")]

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli.app, [*words, *shelf])
        return done.exit_code, done.output

    assert "holds no predictor" in run("registry", "list")[1]
    assert run("registry", "add", "builtin", "--name", "mine", "--note", "the first")[0] == 0
    assert run("registry", "add", "tm50", "--name", "mine")[0] == 0
    assert run("registry", "benchmark", "mine", str(table), "--set", "most_times_slower=10")[0] == 0
    assert run("promote", "mine@1", "production")[0] == 0
    code, said = run("promote", "mine@2", "production")
    assert code == 1
    assert "FAIL  error on measured" in said
    assert run("promote", "mine@2", "production", "--override", "to see")[0] == 0
    assert "\tproduction\tthe first" not in run("registry", "list")[1]
    assert run("rollback", "mine", "production")[0] == 0
    assert "\tproduction\tthe first" in run("registry", "list")[1]
