"""Does recalibrating on a few measurements of one's own help on the rest of them, and does it say so truly?

From a table with another kind of temperature than the predictor learned from (stability temperatures of purified
enzymes, without and with the growth temperature) some proteins are drawn at random, the predictor is recalibrated on
them as 'enzyme-stability calibrate' does it, and the result is judged on all other proteins that are no relatives of
those drawn. Two controls: a table of the kind the predictor learned from, where recalibrating must not claim to help,
and the same table with every temperature 5 degC higher, where it must.

Needs the extra 'dev' and the folders enzymes/ and tm/tm50/ of the public data sets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from threadpoolctl import threadpool_limits

from enzyme_stability import Predictor
from enzyme_stability.correction_choice import MeasuredProteins, Raw, choose_correction
from enzyme_stability.data.homology import cluster, number_by_appearance
from enzyme_stability.data.preparation import prepare_test_table
from enzyme_stability.encoders.composition import amino_acid_frequencies
from enzyme_stability.measured import GIVEN_GROWTH, known_growth_temperature, predict_table
from reporting import DATA, RESULTS, Data, Results, Smoke, data_file, keep, machine, number, run, show

PURIFIED, SAME_KIND = "brenda_stability_train", "tm50_test"
SIZES = (50, 100, 300)
COVERAGE = 0.9
SHIFT_CELSIUS = 5.0
_SMOKE_ROWS = 200


@dataclass(frozen=True)
class Case:
    """A predictor and proteins measured in one way.

    Attributes:
        name: What is measured.
        expected: What recalibrating should find.
        proteins: All of them, their clusters joined wherever there is a hit.
    """

    name: str
    expected: str
    proteins: MeasuredProteins


def main(
    data: Data = DATA,
    draws: Annotated[int, typer.Option(min=1, help="Random draws of each size.")] = 10,
    results: Results = RESULTS,
    smoke: Smoke = False,
) -> None:
    """Recalibrate on random draws and judge on the rest; see the top of this file."""
    for folder in ("enzymes", "tm/tm50"):
        data_file(data, folder)
    facts = machine()
    rows = _SMOKE_ROWS if smoke else None
    purified = _proteins("builtin", PURIFIED, data, rows, with_growth=True)
    (same_kind,) = _proteins("tm50", SAME_KIND, data, rows, with_growth=False)
    shifted = replace(same_kind, measured=same_kind.measured + SHIFT_CELSIUS)
    cases = [
        Case("purified enzymes", "open", purified[0]),
        Case("purified enzymes, growth temperature given", "open", purified[1]),
        Case("the kind learned from", "none", same_kind),
        Case(f"the kind learned from, {SHIFT_CELSIUS:g} degC higher", "help", shifted),
    ]
    found: dict[str, Any] = {}
    with threadpool_limits(1):
        for case in cases:
            print(f"{case.name} ...", flush=True)
            sizes = [size for size in SIZES if 2 * size <= case.proteins.measured.size]
            drawn = {str(size): [_judged(case.proteins, size, seed) for seed in range(draws)] for size in sizes}
            found[case.name] = {
                "expected": case.expected,
                "proteins": case.proteins.measured.size,
                "sizes": {size: {"mean": _mean(runs), "draws": runs} for size, runs in drawn.items()},
            }
    content = {"coverage_asked": COVERAGE, "draws": draws, "cases": found}
    _print(content)
    print(f"\nfigures are in {keep('recalibration', results, content, facts, smoke=smoke).name}")


def _proteins(
    model: str, name: str, data: Path, part: int | None, *, with_growth: bool
) -> tuple[MeasuredProteins, ...]:
    """The proteins of a public table as the plain head sees them, and as the other one does those it can."""
    predictor = Predictor.builtin(model, threads=1)
    rows = prepare_test_table(name, data).table.drop_duplicates("sequence", ignore_index=True)
    if part is not None:
        rows = rows.sample(part, random_state=part, ignore_index=True)
    label = "stability_temperature_celsius" if "stability_temperature_celsius" in rows else "tm_celsius"
    rows["tm_celsius"] = rows[label].astype(float)
    rows["growth_temperature"] = known_growth_temperature(rows, ["growth_temperature_celsius"])
    answers = predict_table(predictor, rows, COVERAGE)
    clusters = cluster(rows["sequence"].tolist(), connected=True)

    def seen(use: np.ndarray, suffix: str) -> MeasuredProteins:
        residues = rows.loc[use, "sequence"].tolist()
        growth = rows.loc[use, "growth_temperature"].to_numpy() if suffix else None
        return MeasuredProteins(
            measured=rows.loc[use, "tm_celsius"].to_numpy(),
            raw=Raw(*predictor.raw_output(residues, growth)[:3]),
            interval=answers.loc[use, [f"{end}_celsius{suffix}" for end in ("lower", "upper")]].to_numpy(dtype=float).T,
            frequencies=amino_acid_frequencies(residues),
            growth_temperature=growth,
            clusters=clusters[use],
        )

    everyone = seen(np.ones(len(rows), dtype=bool), "")
    return (everyone, seen(rows["growth_temperature"].notna().to_numpy(), GIVEN_GROWTH)) if with_growth else (everyone,)


def _judged(proteins: MeasuredProteins, size: int, seed: int) -> dict[str, Any]:
    """Recalibrate on a draw; the error and the interval on the rest, before and after."""
    drawn = np.sort(np.random.default_rng(seed).choice(proteins.measured.size, size, replace=False))
    rest = np.flatnonzero(~np.isin(proteins.clusters, proteins.clusters[drawn]))
    own = proteins.at(drawn)
    choice, interval = choose_correction(replace(own, clusters=number_by_appearance(own.clusters)), COVERAGE, seed)
    others = proteins.at(rest)
    corrected = others.corrected(own.fit(choice.chosen))
    bounds = {"before": others.interval, "after": interval.interval(*corrected, COVERAGE)}
    tm = {"before": others.raw.tm, "after": corrected.tm}
    expected = choice.candidates[choice.chosen]["mae_minus_none"] or {}
    return {
        "seed": seed,
        "clusters": choice.clusters,
        "rest": rest.size,
        "chosen": choice.chosen,
        "cross_validated_change": expected["value"],
        "mae": {when: float(np.abs(values - others.measured).mean()) for when, values in tm.items()},
        "bias": {when: float((values - others.measured).mean()) for when, values in tm.items()},
        "coverage": {
            when: float(((low <= others.measured) & (others.measured <= high)).mean())
            for when, (low, high) in bounds.items()
        },
        "width_celsius": {when: float((high - low).mean()) for when, (low, high) in bounds.items()},
    }


def _mean(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the draws, the share of them in which a correction was taken, and in which it did harm."""
    harm = [run["chosen"] != "none" and run["mae"]["after"] > run["mae"]["before"] for run in runs]
    pairs = {
        key: {when: float(np.mean([run[key][when] for run in runs])) for when in ("before", "after")}
        for key in ("mae", "bias", "coverage", "width_celsius")
    }
    return {
        "rest": float(np.mean([run["rest"] for run in runs])),
        "corrected": sum(run["chosen"] != "none" for run in runs),
        "did_harm": sum(harm),
        "cross_validated_change": float(np.mean([run["cross_validated_change"] for run in runs])),
        **pairs,
    }


def _print(content: dict[str, Any]) -> None:
    columns = (
        "measured",
        "corrected",
        "with",
        "did harm",
        "MAE",
        "change",
        "promised",
        "bias",
        "cover",
        "width",
        "rest",
    )
    for name, case in content["cases"].items():
        show(
            f"{name}: recalibrated on some, judged on the rest (means over {content['draws']} draws; degC)",
            columns,
            [_cells(size, sized["mean"], sized["draws"]) for size, sized in case["sizes"].items()],
        )
    for name, case in content["cases"].items():
        means = [sized["mean"] for sized in case["sizes"].values()]
        total = len(means) * content["draws"]
        corrected, harm = (sum(mean[key] for mean in means) for key in ("corrected", "did_harm"))
        print(f"{name}: a correction was taken in {corrected} of {total} draws and did harm in {harm} of them.")


def _cells(size: str, mean: dict[str, Any], runs: list[dict[str, Any]]) -> tuple[str | None, ...]:
    def both(key: str, digits: int, sign: str = "") -> str:
        return " -> ".join(f"{mean[key][when]:{sign}.{digits}f}" for when in ("before", "after"))

    taken = dict.fromkeys(run["chosen"] for run in runs)
    return (
        size,
        f"{mean['corrected']} of {len(runs)}",
        ", ".join(taken),
        str(mean["did_harm"]),
        both("mae", 2),
        number(mean["mae"]["after"] - mean["mae"]["before"], 2, "+"),
        number(mean["cross_validated_change"], 2, "+"),
        both("bias", 1, "+"),
        both("coverage", 2),
        both("width_celsius", 0),
        number(mean["rest"], 0),
    )


if __name__ == "__main__":
    run(main)
