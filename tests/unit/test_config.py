"""Settings are refused by name when they are misspelt, out of bounds or at odds; what ships is complete."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from enzyme_stability import config as config_module
from enzyme_stability.config import StackedHead, Strict, TrainConfig, Trees
from enzyme_stability.configuration import compose
from enzyme_stability.errors import ConfigError

CONF = Path(config_module.__file__).parent / "conf"
SHIPPED = sorted(path.stem.removeprefix("train_") for path in CONF.glob("train_*.yaml"))


def shipped_values(name: str = "tm50") -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CONF / f"train_{name}.yaml").read_text())
    return values


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.parse(values, "mine.yaml")
    return str(caught.value)


def changed(path: str, value: object) -> dict[str, Any]:
    """The shipped values with one of them changed; a number in the path is a place in a list."""
    values = copy.deepcopy(shipped_values())
    *parents, last = path.split(".")
    place: Any = values
    for step in parents:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[last] = value
    return values


def compose_refusal(name: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(name, overrides)
    return str(caught.value)


def test_the_two_predictors_have_a_configuration() -> None:
    assert {"builtin", "tm50"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_yaml_names_settings_of_the_model_and_no_other(name: str) -> None:
    def check(values: dict[str, Any], model: type[BaseModel], where: str) -> None:
        fields = model.model_fields
        assert set(values) <= set(fields), where
        required = {key for key, field in fields.items() if field.is_required()}
        assert required <= set(values), where
        for key, value in values.items():
            annotation = fields[key].annotation
            if isinstance(annotation, type) and issubclass(annotation, Strict):
                check(value, annotation, f"{where}.{key}")

    values = shipped_values(name)
    assert set(values) == set(TrainConfig.model_fields)
    assert set(values["head"]) == set(StackedHead.model_fields)
    assert set(values["head"]["trees"]) == set(Trees.model_fields)
    check(values, TrainConfig, name)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_yaml_composes_to_the_values_it_holds(name: str) -> None:
    settings = compose(name)
    values = shipped_values(name)
    assert settings.name == values["name"] == name
    assert list(settings.head.thresholds_celsius) == values["head"]["thresholds_celsius"]
    assert [ridge.landmarks for ridge in settings.head.ridges] == [r["landmarks"] for r in values["head"]["ridges"]]
    assert TrainConfig.parse(settings.model_dump(mode="json"), "again") == settings


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_yaml_holds_values_and_no_import_paths(name: str) -> None:
    assert "_target_" not in (CONF / f"train_{name}.yaml").read_text()


@pytest.mark.parametrize(
    ("path", "misspelt"),
    [("sed", "sed"), ("data.paths", "data.paths"), ("head.trees.learning_rat", "head.trees.learning_rat")],
)
def test_a_misspelt_setting_is_named_with_its_place(path: str, misspelt: str) -> None:
    message = refusal(changed(path, 1))
    assert message.startswith("mine.yaml ")
    assert f"{misspelt}: Extra inputs are not permitted" in message


def test_a_misspelt_setting_in_a_list_is_named_with_its_index() -> None:
    assert "head.ridges.1.landmark: Extra inputs" in refusal(changed("head.ridges.1.landmark", 5))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", -1),
        ("threads", 0),
        ("cross_validation_folds", -1),
        ("name", "Not a name"),
        ("name", "../elsewhere"),
        ("data.calibration_share", 0),
        ("data.calibration_share", 0.5),
        ("data.cluster_identity", 1.01),
        ("encoder.blocks", []),
        ("encoder.kind", "language_model"),
        ("head.kind", "mlp"),
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
    ],
)
def test_a_value_out_of_bounds_is_named_and_shown(path: str, value: object) -> None:
    message = refusal(changed(path, value))
    assert f"{path}: " in message
    assert f"(got {value!r})" in message


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
    assert f"{path}" in message
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
    values = shipped_values()
    del values["head"]["trees"]
    message = refusal(values)
    assert "head.trees: Field required" in message


def test_a_missing_setting_does_not_bury_its_name_under_all_the_others() -> None:
    values = shipped_values()
    del values["name"]
    assert len(refusal(values)) < 300


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("head.ridges.0.block_weights", {"window_patterns": 1.0}),  # a block the encoder does not make
        ("head.trees.blocks", ["window_patterns"]),
        ("head.ridges.0.block_weights", {}),
        ("head.trees.blocks", []),
        ("encoder.blocks", ["amino_acids", *shipped_values()["encoder"]["blocks"]]),  # one twice
        ("cross_validation_folds", 1),  # one fold leaves nothing to learn from
    ],
)
def test_settings_that_cannot_train_are_refused_before_training(path: str, value: object) -> None:
    message = refusal(changed(path, value))
    assert path.partition(".")[0] in message


def test_settings_cannot_be_changed_after_they_were_checked() -> None:
    with pytest.raises(ValueError, match="frozen"):
        compose("tm50").seed = 3  # type: ignore[misc]


def test_overrides_reach_every_depth() -> None:
    settings = compose(
        "tm50",
        [
            "seed=7",
            "data.path=mine.csv",
            "head.trees.trees=12",
            "head.ridges.1.landmarks=50",
            "head.ridges.0.block_weights.termini=3",
            "head.thresholds_celsius=[60,70]",
            "name=mine",
        ],
    )
    assert settings.seed == 7
    assert settings.data.path == Path("mine.csv")
    assert settings.head.trees.trees == 12
    assert [ridge.landmarks for ridge in settings.head.ridges] == [1000, 50]
    assert settings.head.ridges[0].block_weights["termini"] == 3
    assert settings.head.thresholds_celsius == (60, 70)
    assert settings.name == "mine"


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("sed=1", "sed"),
        ("+sed=1", "sed"),
        ("head.trees.tree=5", "head.trees.tree"),
        ("+head.ridges.0.landmark=5", "head.ridges.0.landmark"),
        ("head.ridges.9.landmarks=50", "head.ridges.9"),
        ("seed=abc", "seed"),
        ("seed=-1", "seed"),
        ("~name", "name"),
        ("no equals sign", "no equals sign"),
        ("head.trees.quantiles=[0.9,0.1]", "quantiles"),
    ],
)
def test_an_override_that_cannot_be_used_is_named(override: str, named: str) -> None:
    assert named in compose_refusal("tm50", override)


@pytest.mark.parametrize("name", ["nothing", "", "train_tm50", "/nowhere/at/all.yaml", "../conf"])
def test_an_unknown_configuration_is_refused_with_those_there_are(name: str) -> None:
    message = compose_refusal(name)
    assert repr(name) in message
    for known in SHIPPED:
        assert known in message


@pytest.mark.parametrize("name", ["with\0nul", "n" * 5000])
def test_a_configuration_name_no_file_can_have_is_refused(name: str) -> None:
    compose_refusal(name)


@pytest.mark.parametrize("file", ["mine.yaml", "my settings, v1.2.yaml", "réglages.yaml"])
def test_a_yaml_file_of_ones_own_is_read_by_its_path(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text(yaml.safe_dump(changed("seed", 5)), encoding="utf-8")
    assert compose(str(tmp_path / file)).seed == 5
    assert compose(str(tmp_path / file), ["seed=6"]).seed == 6


def test_a_relative_path_is_relative_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(changed("seed", 5)))
    monkeypatch.chdir(tmp_path)
    assert compose("mine.yaml").seed == 5


def test_a_file_hydra_cannot_read_by_its_name_is_still_read_or_the_suffix_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yml"
    file.write_text(yaml.safe_dump(changed("seed", 5)))
    try:
        assert compose(str(file)).seed == 5
    except ConfigError as error:
        assert ".yaml" in str(error)  # noqa: PT017 - either outcome serves


@pytest.mark.parametrize(
    "content",
    [
        b"name: [1\nhead: {",
        b"name:\n\t- tab",
        b"name: a\nname: b\n",
        b"\xff\xfe\x00\x01binary",
        "name: caf\u00e9".encode("latin-1"),
        b"seed: ${nowhere}",
        b"- a\n- list\n",
        b"just words",
        b"7",
        b"",
    ],
)
def test_a_broken_or_shapeless_yaml_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    assert "mine.yaml" in compose_refusal(str(tmp_path / "mine.yaml"))
