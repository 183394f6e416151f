"""A search is checked before its first trial, and a study holds the trials of one search alone."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from enzyme_stability.config import SearchSpace
from enzyme_stability.config.search import as_override
from enzyme_stability.configuration import compose
from enzyme_stability.errors import ArtifactError, ConfigError, DataError, EnzymeStabilityError, MissingDependencyError
from enzyme_stability.interruption import Interruption
from enzyme_stability.search import Search, read_space, spaces, write_search_sweep
from enzyme_stability.study import open_study, shown
from enzyme_stability.tuning import tune

RIDGE = ["data.path=table.csv", "encoder=composition", "head=ridge"]
MLP = ["data.path=table.csv", "encoder=composition", "head=mlp"]
RATE = {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text("id,sequence,tm_celsius\na,MKVLAARRWQ,50\n")
    return tmp_path / "table.csv"


def write_space(folder: Path, **parameters: dict[str, Any]) -> str:
    """File with a space; a double underscore in a name is a dot."""
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump({key.replace("__", "."): entry for key, entry in parameters.items()}))
    return str(path)


def refusal(key: str, entry: object) -> str:
    with pytest.raises(ConfigError) as caught:
        SearchSpace.parse({"parameters": {key: entry}}, "mine.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"kind": "float", "low": 2, "high": 1}, "must be below"),
        ({"kind": "float", "low": 1, "high": 1}, "must be below"),
        ({"kind": "float", "low": 0, "high": 1, "log": True}, "above 0"),
        ({"kind": "float", "low": 0, "high": float("inf")}, "finite"),
        ({"kind": "int", "low": 1.5, "high": 4}, "integer"),
        ({"kind": "int", "low": 1, "hihg": 4}, "hihg"),
        ({"kind": "choice", "values": []}, "at least 1"),
        ({"kind": "choice", "values": [[512, 256]]}, r"'[512,256]'"),
        ({"kind": "choice", "values": [1, 2, 1]}, "twice"),
        ({"kind": "normal", "low": 0, "high": 1}, "'float', 'int', 'choice'"),
        (0.1, "dict"),
    ],
)
def test_an_entry_that_makes_no_sense_is_named(entry: object, why: str) -> None:
    message = refusal("head.learning_rate", entry)
    assert "head.learning_rate" in message
    assert why in message


@pytest.mark.parametrize("key", ["split.folds", "seed", "data.path", "tracking.wandb", "+head.x", "header.x", "head."])
def test_what_decides_the_comparison_cannot_be_searched(key: str) -> None:
    assert f"'{key}' cannot be searched" in refusal(key, {"kind": "int", "low": 2, "high": 5})


def test_a_space_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        SearchSpace.parse({"parameters": {}}, "mine.yaml")


@pytest.mark.parametrize("head", spaces())
def test_every_space_that_ships_fits_its_head(head: str) -> None:
    encoder = "prot_bert" if head in {"light_attention", "lora"} else "composition"
    search = Search.plan(["data.path=table.csv", f"encoder={encoder}", f"head={head}"])
    assert search.base.head.kind == head
    assert search.space == read_space(head)


def test_both_ends_and_every_choice_are_composed_before_the_first_trial() -> None:
    space = {
        "head.dropout": {"kind": "float", "low": 0, "high": 0.5},
        "head.rank": {"kind": "int", "low": 1, "high": 4},
        "head.hidden": {"kind": "choice", "values": ["[8]", "[16]", "[32]"]},
    }
    corners = list(SearchSpace.parse({"parameters": space}, "mine.yaml").corners())
    assert {override for corner in corners for override in corner} == {
        *("head.dropout=0.0", "head.dropout=0.5", "head.rank=1", "head.rank=4"),
        *("head.hidden=[8]", "head.hidden=[16]", "head.hidden=[32]"),
    }
    assert all(len(corner) == 3 for corner in corners)


@pytest.mark.parametrize("value", [None, True, False, 3, 1e-05, 0.1 + 0.2, 123456789.125, "[512,256]"])
def test_a_value_comes_back_from_its_override(value: object) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (read,) = OverridesParser.create().parse_overrides([f"x={as_override(value)}"])  # type: ignore[arg-type]
    assert read.value() == ([512, 256] if value == "[512,256]" else value)


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        ("head.learning_rat", RATE),
        ("trainer.batchsize", {"kind": "choice", "values": [16]}),
        ("head.dropout", {"kind": "float", "low": 0, "high": 1.5}),
        ("head.hidden", {"kind": "choice", "values": ["[8]", "[16]", "[0]"]}),
        ("trainer.batch_size", {"kind": "choice", "values": [16, "many"]}),
    ],
)
def test_what_cannot_be_tried_is_refused_before_the_first_trial(tmp_path: Path, key: str, entry: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        Search.plan(MLP, write_space(tmp_path, **{key: entry}))


def test_a_setting_that_is_given_keeps_its_value() -> None:
    said: list[str] = []
    search = Search.plan([*MLP, "head.dropout=0.1", "trainer.batch_size=16"], report=said.append)
    assert set(search.space.parameters) == {"head.learning_rate", "head.weight_decay", "head.hidden"}
    assert (search.base.head.dropout, search.base.trainer.batch_size) == (0.1, 16)  # type: ignore[union-attr]
    assert said == ["not searched, for the settings give a value: head.dropout, trainer.batch_size"]


def test_nothing_left_to_search_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing is left"):
        Search.plan([*RIDGE, "head.penalties=[1]"])


def test_a_head_without_a_space_asks_for_one() -> None:
    with pytest.raises(ConfigError, match="stacked has no search space"):
        Search.plan(["data.path=table.csv", "encoder=composition", "head=stacked"])


def test_an_unknown_space_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="give one of light_attention, lora, mlp, ridge, trees"):
        read_space("mpl")


@pytest.mark.parametrize("content", [b"head.x: [1", b"- a\n", b"\xff\xfe\x01", b"x: ${nowhere}", b"", b"words"])
def test_a_broken_space_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        read_space(str(tmp_path / "mine.yaml"))


def test_a_trial_is_trained_by_one_process() -> None:
    with pytest.raises(ConfigError, match="trained by one process"):
        Search.plan([*MLP, "trainer.devices=2"])


def test_a_search_is_known_by_its_settings_and_data_not_by_its_place(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = write_space(tmp_path, head__inner_folds={"kind": "int", "low": 2, "high": 9})
    identity = Search.plan(RIDGE, space).identity()
    (tmp_path / "copy.csv").write_bytes(table.read_bytes())
    elsewhere = ["data.path=copy.csv", *RIDGE[1:], "output=elsewhere", "run_name=other", "threads=2"]
    assert Search.plan(elsewhere, space).identity() == identity
    for override in ("split.folds=3", "seed=1", "head.penalties=[7]"):
        other = Search.plan([*RIDGE, override], space).identity()
        assert [name for name in other if other[name] != identity[name]] == [override.partition("=")[0]]
    narrower = write_space(tmp_path, head__inner_folds={"kind": "int", "low": 2, "high": 8})
    assert Search.plan(RIDGE, narrower).identity() != identity
    search = Search.plan(RIDGE, space)
    table.write_text(table.read_text() + "b,MKVLAARRWW,51\n")
    assert search.identity() != identity
    monkeypatch.chdir("/")
    with pytest.raises(DataError, match=r"table\.csv"):
        search.identity()


def test_every_run_of_a_sweep_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search.plan([*MLP, "output='it\\'s mine'", "split.folds=0"])
    write_search_sweep(search, tmp_path / "sweep.yaml")
    sweep = yaml.safe_load((tmp_path / "sweep.yaml").read_text())
    monkeypatch.setenv("WANDB_RUN_ID", "ab12")
    config = compose([*sweep["command"][2:-1], "head.dropout=0.25"])
    assert config.tracking.wandb
    assert (config.run_name, config.output) == ("run-ab12", Path("it's mine/ab12"))
    assert sweep["metric"] == {"name": "calibration_proteins/rmse", "goal": "minimize"}


def drawn(where: Path, trials: int, identity: dict[str, Any] | None = None) -> list[float]:
    """What a study draws for ``x``, with all that it drew before."""
    with open_study(str(where), "s", 5, identity or {"a": 1}) as study:
        study.optimize(lambda trial: (trial.suggest_float("x", 0, 10) - 3) ** 2, trials)
        return [trial.params["x"] for trial in study.trials]


@pytest.mark.parametrize(("suffix", "parts"), [(".db", (1, 2)), (".journal", (3, 8, 2))])
def test_a_search_in_parts_draws_what_one_in_one_go_draws(tmp_path: Path, suffix: str, parts: tuple[int, ...]) -> None:
    whole = drawn(tmp_path / f"whole{suffix}", sum(parts))
    for trials in parts:
        in_parts = drawn(tmp_path / f"parts{suffix}", trials)
    assert in_parts == whole
    assert len(set(whole)) == sum(parts)


def test_a_study_of_other_settings_is_refused_with_what_differs(tmp_path: Path) -> None:
    drawn(tmp_path / "study.db", 1, {"seed": 0, "split.folds": 5})
    with pytest.raises(ConfigError, match=r"'s' in .*study\.db is one of other settings \(split\.folds differ\)"):
        drawn(tmp_path / "study.db", 1, {"seed": 0, "split.folds": 3})
    assert len(drawn(tmp_path / "study.db", 0, {"seed": 0, "split.folds": 5})) == 1


def test_a_study_that_another_program_made_is_refused(tmp_path: Path) -> None:
    import optuna

    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}", study_name="s")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), 1)
    with pytest.raises(ConfigError, match="other settings"):
        drawn(tmp_path / "study.db", 1)


@pytest.mark.parametrize("name", ["study.db", "study.journal"])
def test_a_file_that_is_no_study_is_refused_by_name_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("my notes\n")
    with pytest.raises(ArtifactError, match=name):
        drawn(tmp_path / name, 1)
    assert (tmp_path / name).read_text() == "my notes\n"


def test_a_storage_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match=r"study\.db"):
        drawn(tmp_path / "file" / "study.db", 1)


def test_an_address_that_cannot_be_used_is_refused_without_its_password() -> None:
    for where in ("nosuch://me:secret@host/base", "postgresql+nosuch://me:secret@host/base", "sqlite:/study.db"):
        with pytest.raises(ConfigError) as caught, open_study(where, "s", 0, {}):
            pass
        assert "secret" not in str(caught.value)
    assert shown("postgresql://me:secret@host/base") == "postgresql://me:***@host/base"


def test_optuna_speaks_again_when_the_study_is_closed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    drawn(tmp_path / "study.db", 2)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


def test_without_optuna_the_extra_is_named(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search.plan(MLP)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependencyError, match=r"Tuning needs the 'tune' extra"):
        tune(search, trials=1)
    assert sorted(path.name for path in table.parent.iterdir()) == ["table.csv"]


@pytest.mark.usefixtures("table")
def test_a_study_without_a_finished_trial_has_no_result(tmp_path: Path) -> None:
    space = write_space(tmp_path, head__inner_folds={"kind": "int", "low": 2, "high": 9})
    with pytest.raises(EnzymeStabilityError, match="no trial of study 'run' came to its end"):
        tune(Search.plan(RIDGE, space), trials=0)


@pytest.fixture
def python_handles_interrupts() -> Iterator[None]:
    """As in a program that has just begun, whatever ran in this process before."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_handles_interrupts")
def test_an_interruption_stops_at_once_what_may_be_stopped() -> None:
    with Interruption() as interruption:
        with pytest.raises(KeyboardInterrupt), interruption.allowed():
            signal.raise_signal(signal.SIGINT)
        assert interruption.asked
    with pytest.raises(KeyboardInterrupt):  # as before
        signal.raise_signal(signal.SIGINT)


def test_an_interruption_elsewhere_waits_until_it_is_allowed() -> None:
    with Interruption() as interruption:
        with interruption.allowed():
            pass
        signal.raise_signal(signal.SIGINT)
        assert interruption.asked
        with pytest.raises(KeyboardInterrupt), interruption.allowed():
            raise AssertionError("it began all the same")
        with pytest.raises(KeyboardInterrupt):  # the second time it waits for nothing
            signal.raise_signal(signal.SIGINT)
