"""Settings are refused by name when they are misspelt, out of bounds or at odds; what ships is complete."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

import enzyme_stability
from enzyme_stability.config import (
    Encoder,
    Head,
    Split,
    StackedHead,
    StackedTrees,
    Tracking,
    TrainConfig,
    Trainer,
    TrainingData,
)
from enzyme_stability.configuration import compose, experiments
from enzyme_stability.errors import ConfigError

PACKAGE = Path(enzyme_stability.__file__).parent
CONF = PACKAGE / "conf"
GROUPS = ("encoder", "head", "data", "split", "trainer", "tracking")
FILES = [path for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
KINDS = {
    group: {model.model_fields["kind"].default: model for model in get_args(get_args(union)[0])}
    for group, union in (("encoder", Encoder), ("head", Head))
}
PLAIN = {"data": TrainingData, "split": Split, "trainer": Trainer, "tracking": Tracking}


shipped = functools.cache(lambda name: compose([name]))


def settings_of(name: str = "tm50") -> dict[str, Any]:
    """A shipped configuration as plain values."""
    values: dict[str, Any] = shipped(name).model_dump(mode="json")
    return values


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.parse(values, "mine.yaml")
    return str(caught.value)


def changed(path: str, value: object) -> dict[str, Any]:
    """The shipped values with one of them changed; a number in the path is a place in a list."""
    values = copy.deepcopy(settings_of())
    *parents, last = path.split(".")
    place: Any = values
    for step in parents:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[last] = value
    return values


# What ships


def read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    for base in values.pop("defaults", []):
        values = read(path.with_name(f"{base}.yaml")) | values
    return values


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_of_a_group_names_every_setting_of_its_class_and_no_other(path: Path) -> None:
    values, group = read(path), path.parent.name
    model: type[BaseModel] = KINDS[group][values["kind"]] if group in KINDS else PLAIN[group]
    assert set(values) == set(model.model_fields)
    if model is StackedHead:
        assert set(values["trees"]) == set(StackedTrees.model_fields)


@pytest.mark.parametrize("group", ["encoder", "head"])
def test_every_kind_has_a_file(group: str) -> None:
    assert {read(path)["kind"] for path in (CONF / group).glob("*.yaml")} == set(KINDS[group])


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_of_a_group_composes_with_the_defaults(path: Path) -> None:
    group, values = path.parent.name, read(path)
    needed = {"data.path": "mine.csv", "encoder.model": "esm2_8m"}
    given = [f"{key}={value}" for key, value in needed.items() if values.get(key.partition(".")[2]) == "???"]
    stack = values.get("kind") == "stacked"
    config = compose(
        [f"{group}={path.stem}", *given, "data.path=mine.csv", *(["encoder=composition"] if stack else [])]
    )
    composed = getattr(config, group).model_dump(mode="json")
    assert composed == values | {key.partition(".")[2]: needed[key] for key in (o.partition("=")[0] for o in given)}


def test_the_defaults_name_every_setting_of_a_run() -> None:
    values = yaml.safe_load((CONF / "train.yaml").read_text())
    chosen = {next(iter(entry)) for entry in values.pop("defaults") if isinstance(entry, dict)} - {"experiment"}
    assert chosen == set(GROUPS)
    assert set(values) | chosen == set(TrainConfig.model_fields)


def test_the_two_predictors_have_a_configuration() -> None:
    assert {"builtin", "tm50"} <= set(experiments())


@pytest.mark.parametrize("name", ["builtin", "tm50"])
def test_a_shipped_predictor_was_trained_with_what_its_configuration_says(name: str) -> None:
    manifest = json.loads((PACKAGE / "pretrained" / name / "predictor.json").read_text(encoding="utf-8"))
    trained, now = manifest["training"]["config"], settings_of(name)
    assert now["run_name"] == (trained.get("name") or trained["run_name"]) == name
    assert now["output"] == f"outputs/{name}"
    assert now["data"]["path"] == f"outputs/{trained['data']['path']}"
    assert now["data"]["growth_temperature_columns"] == trained["data"]["growth_temperature_columns"]
    split = trained.get("split") or trained["data"] | {"folds": trained["cross_validation_folds"]}
    for setting in ("calibration_share", "cluster_identity", "cluster_coverage", "folds"):
        assert now["split"][setting] == split[setting]
    for part in ("description", "encoder", "head", "interval", "domain", "seed"):
        assert now[part] == trained[part], part


def test_shipped_yaml_holds_values_and_no_import_paths() -> None:
    assert [path for path in CONF.rglob("*.yaml") if "_target_" in path.read_text(encoding="utf-8")] == []


# Values


@pytest.mark.parametrize(
    ("path", "suggested"),
    [
        ("sed", "seed"),
        ("data.paths", "data.path"),
        ("head.trees.learning_rat", "head.trees.learning_rate"),
        ("head.ridges.1.landmark", "head.ridges.1.landmarks"),
        ("encoder.block", "encoder.blocks"),
    ],
)
def test_a_misspelt_setting_is_named_with_its_place_and_the_right_name(path: str, suggested: str) -> None:
    message = refusal(changed(path, 1))
    assert message.startswith("mine.yaml ")
    assert f"  {path}: Extra inputs are not permitted (got 1); did you mean {suggested}?" in message


def test_a_setting_like_no_other_is_refused_without_a_guess() -> None:
    message = refusal(changed("colour", "red"))
    assert "colour: Extra inputs are not permitted" in message
    assert "did you mean" not in message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", -1),
        ("threads", 0),
        ("split.folds", -1),
        ("run_name", "Not a name"),
        ("run_name", "../elsewhere"),
        ("split.calibration_share", 0),
        ("split.calibration_share", 0.5),
        ("split.validation_share", 0.5),
        ("split.cluster_identity", 1.01),
        ("encoder.blocks", []),
        ("head.inner_folds", 1),
        ("head.ridges", []),
        ("head.ridges.0.landmarks", 9),
        ("head.ridges.0.penalty", 0.0),
        ("head.ridges.0.sharpness", -1.0),
        ("head.trees.trees", 0),
        ("head.trees.learning_rate", 1.5),
        ("head.trees.feature_share", 0.0),
        ("interval.upper_tail_share", 1.0),
        ("domain.flagged_share", 0.5),
        ("domain.nonstandard_share", 1.1),
        ("data.measurement_error_celsius", 0.0),
        ("trainer.devices", 0),
        ("trainer.precision", "16"),
        ("tracking.wandb_mode", "sometimes"),
    ],
)
def test_a_value_out_of_bounds_is_named_and_shown(path: str, value: object) -> None:
    message = refusal(changed(path, value))
    assert f"  {path}: " in message
    assert f"(got {value!r})" in message


@pytest.mark.parametrize(("path", "value"), [("encoder.kind", "words"), ("head.kind", "forest")])
def test_an_unknown_kind_is_refused_with_those_there_are(path: str, value: str) -> None:
    message = refusal(changed(path, value))
    assert f"'{value}'" in message
    for kind in KINDS[path.partition(".")[0]]:
        assert f"'{kind}'" in message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", "twelve"),
        ("seed", 1.5),
        ("seed", None),
        ("threads", [1]),
        ("data", "table.csv"),
        ("head.ridges", 3),
        ("head.trees.trees", "many"),
        ("head.thresholds_celsius", 50),
        ("encoder.blocks", "amino_acids"),
        ("data.path", 7),
    ],
)
def test_a_value_of_the_wrong_type_is_named_and_shown(path: str, value: object) -> None:
    message = refusal(changed(path, value))
    assert f"  {path}: " in message
    assert f"(got {value!r})" in message


@pytest.mark.parametrize("block", ["amino_acid", "Dipeptides", "", 5])
def test_an_unknown_descriptor_block_is_refused(block: object) -> None:
    assert "encoder.blocks.0: " in refusal(changed("encoder.blocks", [block]))


@pytest.mark.parametrize("quantiles", [[0.9, 0.1], [0.5, 0.5], [0.0, 0.9], [0.1, 1.0]])
def test_quantiles_must_rise_between_zero_and_one(quantiles: list[float]) -> None:
    message = refusal(changed("head.trees.quantiles", quantiles))
    assert "head.trees" in message
    assert "quantiles must rise" in message


def test_every_fault_is_reported_at_once() -> None:
    message = refusal(changed("seed", -1) | {"threads": 0, "colour": "red"})
    assert all(name in message for name in ("seed: ", "threads: ", "colour: "))


def test_a_missing_setting_is_named() -> None:
    values = settings_of()
    del values["head"]["trees"]
    assert "head.trees: Field required" in refusal(values)


def test_a_missing_setting_does_not_bury_its_name_under_all_the_others() -> None:
    values = settings_of()
    del values["run_name"]
    assert len(refusal(values)) < 300


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("head.ridges.0.block_weights", {"window_patterns": 1.0}, "window_patterns"),  # the encoder does not make it
        ("head.trees.blocks", ["window_patterns"], "window_patterns"),
        ("head.ridges.0.block_weights", {}, "head.ridges.0.block_weights"),
        ("head.trees.blocks", [], "head.trees.blocks"),
        ("encoder.blocks", ["amino_acids", *settings_of()["encoder"]["blocks"]], "encoder.blocks"),  # one twice
        ("split.folds", 1, "folds is 1"),  # one fold leaves nothing to learn from
        ("encoder", {"kind": "language_model", "model": "esm2_8m"}, "head stacked needs encoder composition"),
        ("head", {"kind": "lora"}, "head lora needs a language model"),
        ("head", {"kind": "light_attention"}, "head light_attention needs a language model"),
        ("trainer", {"ensemble": 2}, "is no network, so no ensemble"),
    ],
)
def test_settings_that_cannot_train_are_refused_before_training(path: str, value: object, named: str) -> None:
    assert named in refusal(changed(path, value))


def test_settings_cannot_be_changed_after_they_were_checked() -> None:
    with pytest.raises(ValueError, match="frozen"):
        compose(["tm50"]).seed = 3  # type: ignore[misc]


# Composition


def test_overrides_reach_every_depth() -> None:
    settings = compose(
        [
            "tm50",
            "seed=7",
            "data.path=mine.csv",
            "head.trees.trees=12",
            "head.ridges.1.landmarks=50",
            "head.ridges.0.block_weights.termini=3",
            "head.thresholds_celsius=[60,70]",
            "run_name=mine",
        ]
    )
    assert settings.seed == 7
    assert settings.data.path == "mine.csv"
    assert isinstance(settings.head, StackedHead)
    assert settings.head.trees.trees == 12
    assert [ridge.landmarks for ridge in settings.head.ridges] == [1000, 50]
    assert settings.head.ridges[0].block_weights["termini"] == 3
    assert settings.head.thresholds_celsius == (60, 70)
    assert settings.run_name == "mine"
    assert settings.output == Path("outputs/mine")


@pytest.mark.parametrize(
    "path", ["gs://bucket/table.parquet", "memory://table.csv", "/a b/c.csv", "C:/tables/mine.csv"]
)
def test_an_address_of_a_table_comes_through_as_it_is(path: str) -> None:
    assert compose([f"data.path={path}"]).data.path == path
    assert compose([f"data.path='{path}'"]).data.path == path
