"""The model card: every figure is given, none is typed; what is missing leaves no empty section behind."""

from __future__ import annotations

import copy
import re
from importlib.resources import files
from typing import Any

import pytest

from enzyme_stability.card import render_card

TEMPLATE = files("enzyme_stability").joinpath("templates/card.md.j2").read_text(encoding="utf-8")


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.0613, "high": value + 0.0717}


def figures(start: float, n: int) -> dict[str, Any]:
    names = ("r2", "rmse", "mae", "bias", "pearson", "spearman", "auc_60")
    return {"n": n, **{name: figure(start + k / 7) for k, name in enumerate(names)}}


def group(share: float, n: int) -> dict[str, Any]:
    return {"n": n, "coverage": figure(share), "mean_width_celsius": 13.37 + share}


def evaluation(name: str, start: float = 0.613, n: int = 1234) -> dict[str, Any]:
    other = {"metrics": figures(start - 0.09, n - 3), "difference": figures(start / 3, n - 3)}
    return {
        "name": name,
        "metrics": figures(start, n),
        "intervals": {
            "nominal": 0.917,
            "overall": group(start, n),
            "bands": {"< 55": group(start + 0.01, 411), "55-65": group(start + 0.02, 412), "> 65": None},
            "in_domain": group(start, n - 45),
            "flagged": group(start, 45),
        },
        "domain": {
            "n": n,
            "flagged_share": 0.0371,
            "in_domain": {"n": n - 45, "mae": figure(3.713), "rmse": figure(4.819)},
            "flagged": {"n": 45, "mae": figure(7.117), "rmse": figure(8.273)},
            "difference": {"mae": figure(3.404), "rmse": figure(3.454)},
        },
        "within_organism": {
            "minimum_proteins": 23,
            "n": 777,
            "r2": figure(0.171),
            "mean_spearman": figure(0.283),
            "organisms": {"Escherichia coli": {"n": 778, **figures(0.33, 778)}},
            "between": {"variance_share": 0.719, "pearson_of_means": 0.97},
        },
        "baselines": {"growth_temperature": copy.deepcopy(other)},
        "peers": {"SomePeer": {**copy.deepcopy(other), "note": "knows more", "source": "Somebody et al."}},
        "leakage": {
            "train_proteins": 6241,
            "test_proteins": 1553,
            "coverage": 0.51,
            "duplicates": 17,
            "near": [{"identity": 0.31, "proteins": 566, "share": 0.3641}],
        },
        "source": {"description": "A made-up table.", "label": "temperature of half activity"},
        "unpredicted": 19,
    }


TRAINING = {
    "name": "builtin",
    "description": "A made-up predictor.",
    "config": {"seed": 42, "encoder": {"kind": "composition"}, "output": "secret/folder", "data": {"path": "x.csv"}},
    "train_proteins": 9871,
    "with_growth_temperature": 8766,
    "tm_celsius": {"minimum": 27.13, "median": 52.37, "maximum": 98.71},
    "data": {
        "raw_rows": 16659,
        "removed": {"merged": 4321},
        "proteins": 12338,
        "measurements": 15555,
        "organisms": {"Escherichia coli": 1832, "unknown": 271},
        "tables": [
            {
                "name": "meltome_runs",
                "raw_rows": 16658,
                "removed": {"merged": 4319, "poor curve": 22},
                "source": "Meltome Atlas",
                "licence": "CC BY",
                "citation": "Jarzab et al. | Nature Methods",
            }
        ],
        "held_out": ["tm50_test"],
        "settings": {"held_out_identity": 0.29, "held_out_coverage": 0.53},
    },
}


def everything() -> dict[str, Any]:
    return {
        "training": copy.deepcopy(TRAINING),
        "cross_validation": evaluation("held-out folds", 0.517, 10987),
        "tests": [evaluation("tm50_test"), evaluation("flip_human", 0.219, 753)],
        "purified": [evaluation("brenda_stability", 0.187, 311)],
        "artefact_bytes": 9_437_184,
        "calibration_proteins": 1097,
    }


def changed(value: Any) -> Any:
    """The same structure with every number replaced by another one, as different in print."""
    match value:
        case dict():
            return {key: changed(item) for key, item in value.items()}
        case list():
            return [changed(item) for item in value]
        case int() | float():
            return type(value)(value * 3 + 5) if isinstance(value, int) else value * 1.3 + 0.107
        case _:
            return value


def numbers(card: str) -> list[str]:
    return re.findall(r"\d[\d,.]*", card.replace("tm50_test", ""))


def test_no_figure_is_typed_in_the_template() -> None:
    words = re.sub(r"{{.*?}}|{%.*?%}|{#.*?#}", "", TEMPLATE, flags=re.DOTALL)
    assert re.findall(r"\d+", words) == []
    # Inside expressions digits are only those of a format and of the names of figures.
    code = " ".join(re.findall(r"{{.*?}}|{%.*?%}", TEMPLATE, flags=re.DOTALL))
    code = re.sub(r"(figure|number|share)\(\d|\br2\b|auc_60|lt\(0\)|melting\[0\]", "", code)
    assert re.findall(r"\d+", code) == []


def test_every_figure_follows_the_input() -> None:
    inputs = everything()
    before, after = render_card(**inputs), render_card(**changed(inputs))
    fixed = {"95", "60", "55", "65"}  # the confidence, the threshold of the AUC, the bands in the names of columns
    for old, new in zip(before.splitlines(), after.splitlines(), strict=True):
        for a, b in zip(numbers(old), numbers(new), strict=True):
            assert a != b or a.rstrip(".") in fixed, f"{a} stands in both cards:\n{old}\n{new}"


def test_the_figures_given_are_the_figures_shown() -> None:
    card = render_card(**everything())
    for text in (
        "| **builtin** | 1,234 | 0.613 (0.552 to 0.685) |",
        "| SomePeer | 1,231 | 0.523 (0.462 to 0.595) |",
        "| baseline: growth temperature | 1,231 |",
        "| SomePeer | 1,231 | +0.204 (+0.143 to +0.276) |",
        "| proteins learnt from | 9,871 |",
        "| proteins the intervals are calibrated on | 1,097 |",
        "| Tm in the training table | 27.1 to 98.7 °C |",
        "| size of the model | 9.4 MB |",
        "36.4 % have a training protein at 31 % identity or more, 17 are in the training table themselves",
        "| Escherichia coli | 778 |",
        "| held-out folds | 92 % | 51.7 % (45.6 to 58.9) | 52.7 %",
        "| tm50_test | 3.7 % | 3.71 (3.65 to 3.78) | 7.12 (7.06 to 7.19) | +3.40 (+3.34 to +3.48) |",
        "| brenda_stability | temperature of half activity | 311 |",
        "72 % of the variance of the measured Tm lies between these organisms",
        "- SomePeer: knows more; Somebody et al.",
        "19 further rows of the table could not be predicted",
        "Outside 27 to 99 °C nothing was learnt",
        "known for 8,766 of the",
    ):
        assert text in card


@pytest.mark.parametrize("bias", [-12.4, 12.4])
def test_the_shift_on_purified_enzymes_says_its_direction(bias) -> None:
    shifted = evaluation("brenda_stability")
    shifted["metrics"]["bias"] = figure(bias)
    card = render_card(TRAINING, purified=[shifted])
    side = "below" if bias < 0 else "above"
    assert f"On brenda_stability predictions lie 12.4 °C {side} the label on average." in card


def test_the_limits_always_stand_there() -> None:
    card = render_card({"name": "mine", "description": "Trained on my own."})
    for words in ("purified protein", "Not for mutants", "Not for antibodies", "Membrane proteins are poorly covered"):
        assert words in card
    assert "## Licence" in card


def test_what_is_missing_leaves_its_section_out() -> None:
    card = render_card({"name": "mine", "description": "Trained on my own."})
    assert re.findall(r"^## (.*)", card, flags=re.MULTILINE) == [
        "What it predicts",
        "How to use it",
        "Limits",
        "Licence",
    ]
    bare = evaluation("folds")
    bare |= {"within_organism": None, "baselines": {}, "peers": {}, "leakage": None, "source": {}, "unpredicted": 0}
    card = render_card({"name": "mine", "description": "Trained on my own."}, cross_validation=bare)
    for words in ("Difference on the same", "Within organisms", "have a training protein", "could not be predicted"):
        assert words not in card


def tables(card: str) -> list[list[str]]:
    blocks = re.split(r"\n(?!\|)", card)
    return [[line for line in block.splitlines() if line.startswith("|")] for block in blocks if "\n|" in f"\n{block}"]


@pytest.mark.parametrize("inputs", [everything(), {"training": {"name": "mine", "description": "Mine."}}])
def test_tables_are_well_formed_and_not_empty(inputs) -> None:
    found = tables(render_card(**inputs))
    assert found
    for rows in found:
        assert len(rows) >= 3, rows
        cells = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
        assert len(cells) == 1, rows


def test_a_figure_that_is_not_defined_is_a_dash() -> None:
    table = evaluation("tmpred_test")
    table["metrics"]["auc_60"] = None
    table["domain"] |= {"flagged": None, "difference": None}
    card = render_card(TRAINING, tests=[table])
    assert re.search(r"\| \*\*builtin\*\* .* \| - \|\n", card)
    assert re.search(r"\| tmpred_test \| 3\.7 % \| 3\.71 \(.*\) \| - \| - \|\n", card)


def test_paths_of_the_configuration_stay_out() -> None:
    card = render_card(**everything())
    assert '"seed": 42' in card
    assert "secret/folder" not in card
    assert "x.csv" not in card


def test_only_the_builtin_predictor_is_shown_as_the_default() -> None:
    assert "Predictor.builtin()" in render_card(TRAINING)
    assert 'Predictor.load("mine")' in render_card({**TRAINING, "name": "mine"})
