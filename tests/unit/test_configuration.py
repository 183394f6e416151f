"""Configurations composed from defaults, files and overrides; what is misspelt is named with the closest right name."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import yaml

from enzyme_stability.config import Ridge, TrainConfig
from enzyme_stability.configuration import compose, experiments, sweep
from enzyme_stability.errors import ConfigError

TABLE = "data.path=mine.csv"


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    return str(caught.value)


def own_file(folder: Path, text: str, name: str = "mine.yaml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


# Misspelt


@pytest.mark.parametrize(
    ("overrides", "named", "suggested"),
    [
        (["head.learning_rte=1"], "'head.learning_rte'", "head.learning_rate"),
        (["heed=mlp"], "'heed'", "head"),
        (["sed=1"], "'sed'", "seed"),
        (["~sed"], "'sed'", "seed"),
        (["learning_rate=0.1"], "'learning_rate'", "head.learning_rate"),
        (["hed.dropout=0.1"], "'hed.dropout'", "head.dropout"),
        (["data.pth=mine.csv"], "'data.pth'", "data.path"),
        (["name=mine"], "'name'", "run_name"),
        (["cluster_identity=0.5"], "'cluster_identity'", "split.cluster_identity"),
        (["head=trees", "head.tree=5"], "'head.tree'", "head.trees"),
        (["tm50", "head.trees.leafs=5"], "'head.trees.leafs'", "head.trees.leaves"),
        (["tm50", "head.ridges.0.landmark=5"], "'head.ridges.0.landmark'", "head.ridges.0.landmarks"),
        (["tm50", "+sed=1"], "sed: ", "seed"),
        (["tm50", "+head.ridges.0.landmark=5"], "head.ridges.0.landmark: ", "head.ridges.0.landmarks"),
        (["encoder=prot_brt"], "encoder 'prot_brt'", "prot_bert"),
        (["head=rigde"], "head 'rigde'", "ridge"),
        (["tracking=wandbb"], "tracking 'wandbb'", "wandb"),
        (["experiment=builtn"], "experiment 'builtn'", "builtin"),
    ],
)
def test_a_misspelt_override_is_named_with_the_closest_right_name(
    overrides: list[str], named: str, suggested: str
) -> None:
    message = refusal(*overrides, *([] if overrides[0] == "tm50" else [TABLE]))
    assert named in message
    assert f"did you mean {suggested}?" in message


@pytest.mark.parametrize("override", ["head.learning_rte=1", "heed=mlp", "encoder=prot_brt", "zzzz=1", "head/foo=mlp"])
def test_an_error_gives_no_advice_that_would_not_help(override: str) -> None:
    message = refusal(TABLE, override)
    assert override.partition("=")[0].partition("/")[0] in message
    assert "\n" not in message
    for words in ("Config search path", "provider=", "+", "https://", "append"):
        assert words not in message


def test_an_unknown_choice_is_refused_with_all_choices() -> None:
    message = refusal(TABLE, "head=forest")
    assert "light_attention, lora, mlp, ridge, stacked, trees" in message


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("head.ridges.9.landmarks=50", "head.ridges.9"),
        ("seed=abc", "seed"),
        ("seed=-1", "seed"),
        ("~head", "head"),
        ("no equals sign", "no equals sign"),
        ("head.trees.quantiles=[0.9,0.1]", "quantiles"),
    ],
)
def test_an_override_that_cannot_be_used_is_named(override: str, named: str) -> None:
    assert named in refusal("tm50", override)


@pytest.mark.parametrize("value", ["a,b.csv", "a(1).csv", "a=b.csv", "[1", "{x", "réglages.csv"])
def test_a_value_with_signs_of_the_grammar_is_refused_with_the_way_to_quote_it(value: str) -> None:
    message = refusal(f"data.path={value}")
    assert f"data.path={value}" in message
    assert "quote" in message
    assert compose([f'data.path="{value}"']).data.path == value


@pytest.mark.parametrize(
    ("overrides", "example"), [([], "data.path=measured.csv"), ([TABLE, "encoder=language_model"], "encoder.model=")]
)
def test_a_setting_without_a_default_is_asked_for_with_an_example(overrides: list[str], example: str) -> None:
    message = refusal(*overrides)
    assert message.startswith(f"{example.partition('=')[0]} is not set")
    assert example in message


@pytest.mark.parametrize("name", ["nothing", "", "train_tm50", "/nowhere/at/all.yaml", "../conf"])
def test_an_unknown_configuration_is_refused_with_those_there_are(name: str) -> None:
    message = refusal(name)
    assert repr(name) in message
    for known in experiments():
        assert known in message


@pytest.mark.parametrize("name", ["with\0nul", "n" * 5000])
def test_a_configuration_name_no_file_can_have_is_refused(name: str) -> None:
    refusal(name)


# Files of one's own


@pytest.mark.parametrize("file", ["mine.yaml", "my settings, v1.2.yaml", "réglages.yaml"])
def test_a_yaml_file_is_read_by_its_path(tmp_path: Path, file: str) -> None:
    whole = compose(["tm50", "seed=5"]).model_dump(mode="json")
    path = own_file(tmp_path, yaml.safe_dump(whole), file)
    assert compose([path]) == compose(["tm50", "seed=5"])
    assert compose([path, "seed=6"]).seed == 6


def test_a_relative_path_is_relative_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_file(tmp_path, "defaults: [train]\nseed: 5\ndata: {path: x.csv}\n")
    monkeypatch.chdir(tmp_path)
    assert compose(["mine.yaml"]).seed == 5


def test_a_file_needs_to_say_only_what_differs_from_the_defaults(tmp_path: Path) -> None:
    path = own_file(
        tmp_path,
        "defaults:\n  - train\n  - override /head: ridge\n\nseed: 5\ndata: {path: mine.csv}\nhead: {inner_folds: 4}\n",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = compose([path])
    assert config == compose([TABLE, "head=ridge", "head.inner_folds=4", "seed=5"])
    assert isinstance(config.head, Ridge)
    assert compose([path, "head.inner_folds=3"]).head.inner_folds == 3  # type: ignore[union-attr]


def test_a_misspelt_name_in_a_file_is_named_with_the_closest_right_name(tmp_path: Path) -> None:
    message = refusal(own_file(tmp_path, "defaults: [train]\ndata: {path: x.csv}\nhead: {learning_rte: 1}\nsed: 1\n"))
    assert message.startswith("mine.yaml ")
    assert "head.learning_rte: " in message
    assert "did you mean head.learning_rate?" in message
    assert "did you mean seed?" in message
    choice = "defaults:\n  - train\n  - override /head: rigde\n\ndata: {path: x.csv}\n"
    assert "did you mean ridge?" in refusal(own_file(tmp_path, choice))


def test_a_file_of_another_suffix_is_refused_with_what_to_do(tmp_path: Path) -> None:
    for name in ("mine.yml", "table.csv"):
        message = refusal(own_file(tmp_path, "seed: 5\n", name))
        assert ".yaml" in message
        assert "data.path=" in message


@pytest.mark.parametrize(
    "content",
    [
        b"name: [1\nhead: {",
        b"name:\n\t- tab",
        b"name: a\nname: b\n",
        b"\xff\xfe\x00\x01binary",
        "name: caf\u00e9".encode("latin-1"),
        b"seed: ${nowhere}",
        b"defaults: [nowhere]",
        b"- a\n- list\n",
        b"just words",
        b"7",
        b"",
    ],
)
def test_a_broken_or_shapeless_yaml_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    assert "mine.yaml" in refusal(str(tmp_path / "mine.yaml"))


# Several runs


def test_a_sweep_makes_every_combination_and_numbers_them() -> None:
    runs = list(sweep(["tm50", "seed=1,2", "head.inner_folds=3,4", "run_name=mine"]))
    assert [apart for apart, _ in runs] == [
        [f"seed={seed}", f"head.inner_folds={folds}"] for seed in (1, 2) for folds in (3, 4)
    ]
    assert [config.output for _, config in runs] == [Path(f"outputs/mine/{k}") for k in range(4)]
    assert [config.run_name for _, config in runs] == [f"mine-{k}" for k in range(4)]
    for apart, config in runs:
        alone = compose(["tm50", *apart, "run_name=mine"])
        assert alone.model_copy(update={"output": config.output, "run_name": config.run_name}) == config


def test_a_sweep_over_heads_and_ranges() -> None:
    assert [config.head.kind for _, config in sweep([TABLE, "head=mlp,ridge"])] == ["mlp", "ridge"]
    assert [config.seed for _, config in sweep([TABLE, "seed=range(1,4)"])] == [1, 2, 3]


def test_a_sweep_of_nothing_is_one_run() -> None:
    ((apart, config),) = sweep([TABLE])
    assert apart == []
    assert isinstance(config, TrainConfig)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([TABLE, "sed=1,2"], "did you mean seed?"),
        ([TABLE, "head=mlp,rigde"], "did you mean ridge?"),
        ([TABLE, "seed=1,-2"], "seed"),
        (["data.path=a=b,c"], "quotes"),
    ],
)
def test_a_sweep_with_one_bad_run_is_refused_before_the_first(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        next(sweep(overrides))
    assert words in str(caught.value)
