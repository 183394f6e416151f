"""Training on the embeddings of a language model: a tiny one with random weights, saved as the hub keeps real ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from quick_runs import heads_in

from enzyme_stability import Predictor, Record, training
from enzyme_stability.config import LanguageModel as Settings
from enzyme_stability.config import TrainConfig
from enzyme_stability.configuration import compose
from enzyme_stability.embeddings.encoder import LanguageModelEncoder
from enzyme_stability.encoders import language_model
from enzyme_stability.errors import ArtifactError, ConfigError
from enzyme_stability.training import train
from tiny_models import WIDTH, save_tiny_model

HEADS = {
    "ridge": (),
    "mlp": ("head.hidden=[16]", "head.learning_rate=0.01", "trainer.max_epochs=10"),
    "light_attention": (
        *("head.channels=8", "head.kernel=5", "head.hidden=8"),
        *("head.learning_rate=0.01", "trainer.batch_size=32", "trainer.max_epochs=3"),
    ),
    "lora": ("head.rank=2", "head.hidden=[8]", "trainer.batch_size=32", "trainer.max_epochs=2"),
}
PROTEINS = 260

PREDICT = """
import dataclasses, json, sys
from enzyme_stability import Predictor
sequences = json.load(sys.stdin)
predicted = [Predictor(folder, threads=1).predict(sequences) for folder in sys.argv[1:]]
print(json.dumps([[dataclasses.asdict(row) for row in rows] for rows in predicted]))
"""


@pytest.fixture(scope="module", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Nothing of the user's store and models is seen, and no hub."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ENZYME_STABILITY_STORE", str(folder / "store"))
        patched.setenv("ENZYME_STABILITY_MODELS", str(folder / "models"))
        patched.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("language_model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return save_tiny_model("esm2", folder / "tiny")


@pytest.fixture(scope="module")
def proteins(made_up_proteins: pd.DataFrame) -> pd.DataFrame:
    return made_up_proteins[:PROTEINS]


@pytest.fixture(scope="module")
def fresh(made_up_proteins: pd.DataFrame) -> list[str]:
    """Proteins that nothing was computed for, one with residues that are not standard."""
    return [*made_up_proteins["sequence"][PROTEINS : PROTEINS + 12], "MKVU" * 20]


def configured(head: str, folder: Path, model: Path, proteins: pd.DataFrame, *changes: str) -> TrainConfig:
    table = folder / "table.csv"
    if not table.is_file():
        proteins.to_csv(table, index=False)
    given = [
        *(f'data.path="{table}"', f"head={head}", *HEADS[head]),
        *("encoder=language_model", f'encoder.model="{model}"', "encoder.device=cpu", "trainer.accelerator=cpu"),
        *("split.calibration_share=0.35", "split.folds=0", f'output="{folder / head}"', *changes),
    ]
    return compose([f"{name}={value}" for name, value in dict(o.split("=", 1) for o in given).items()])


@pytest.fixture(scope="module")
def trained(folder: Path, model: Path, proteins: pd.DataFrame) -> dict[str, Predictor]:
    """A predictor of each head."""
    return {head: train(configured(head, folder, model, proteins)) for head in HEADS}


@pytest.fixture(scope="module", params=HEADS)
def predictor(request: pytest.FixtureRequest, trained: dict[str, Predictor]) -> Predictor:
    return trained[request.param]


def encoder_of(predictor: Predictor) -> LanguageModelEncoder:
    assert isinstance(predictor.encoder, LanguageModelEncoder)
    return predictor.encoder


def refuse_to_load(*_: object, **__: object) -> None:
    raise AssertionError("the language model was loaded although everything was computed before")


# Predicting


def test_a_fresh_process_without_network_or_store_predicts_the_same(
    trained: dict[str, Predictor], fresh: list[str], tmp_path: Path
) -> None:
    folders = [str(predictor.folder) for predictor in trained.values()]
    environment = os.environ | {"ENZYME_STABILITY_STORE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, *folders],
        input=json.dumps(fresh),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    for predictor, there in zip(trained.values(), json.loads(done.stdout), strict=True):
        here = pd.DataFrame(predictor.predict(fresh))
        assert here["status"].tolist() == ["ok"] * 12 + ["warning"]
        numbers = ["tm_celsius", "tm_lower_celsius", "tm_upper_celsius"]
        # Sums over another number of threads differ in their last digits; a prediction is rounded to 0.01.
        np.testing.assert_allclose(pd.DataFrame(there)[numbers], here[numbers], atol=0.021)
        assert pd.DataFrame(there)["in_domain"].tolist() == here["in_domain"].tolist()


def test_a_protein_gets_the_same_answer_alone_and_among_others(predictor: Predictor, fresh: list[str]) -> None:
    together = predictor.predict(fresh)
    assert [predictor.predict([sequence])[0].tm_celsius for sequence in fresh] == [row.tm_celsius for row in together]


def test_intervals_hold(predictor: Predictor, made_up_proteins: pd.DataFrame) -> None:
    others = made_up_proteins[PROTEINS + 1 :]
    rows = pd.DataFrame(predictor.predict(others["sequence"].tolist()), index=others.index)
    inside = others["tm_celsius"].between(rows["tm_lower_celsius"], rows["tm_upper_celsius"])
    assert inside.mean() >= 0.8
    assert rows["in_domain"].mean() >= 0.8


def test_what_can_be_learned_from_the_embeddings_is_learned(
    trained: dict[str, Predictor], made_up_proteins: pd.DataFrame
) -> None:
    others = made_up_proteins[PROTEINS + 1 :]
    for head in ("ridge", "mlp"):
        said = [row.tm_celsius for row in trained[head].predict(others["sequence"].tolist())]
        assert np.corrcoef(said, others["tm_celsius"])[0, 1] > 0.7, head


def test_a_growth_temperature_is_taken_where_the_head_can(trained: dict[str, Predictor], fresh: list[str]) -> None:
    assert {head for head, p in trained.items() if p.takes_growth_temperature} == {"ridge", "mlp"}
    for head, predictor in trained.items():
        cold, hot = (predictor.predict([Record("", fresh[0], t)])[0].tm_celsius for t in (20.0, 75.0))
        assert (cold != hot) == (head in {"ridge", "mlp"})


# Embeddings made elsewhere


@pytest.mark.parametrize("head", ["ridge", "mlp"])
def test_embeddings_give_the_answers_of_their_sequences(
    head: str, trained: dict[str, Predictor], proteins: pd.DataFrame
) -> None:
    predictor, sequences = trained[head], proteins["sequence"].tolist()[:30]
    vectors = np.stack(encoder_of(predictor).encode(sequences))
    found = predictor.predict_embeddings([str(k) for k in range(30)], vectors, coverage=0.8)
    expected = predictor.predict(sequences, coverage=0.8)
    for one, other in zip(found, expected, strict=True):
        assert (one.tm_celsius, one.tm_lower_celsius, one.tm_upper_celsius) == (
            other.tm_celsius,
            other.tm_lower_celsius,
            other.tm_upper_celsius,
        )
    far = predictor.predict_embeddings(["far"], vectors[:1] + 100 * vectors.std())
    assert far[0].in_domain is False


def test_embeddings_that_do_not_fit_are_refused(trained: dict[str, Predictor]) -> None:
    vectors = np.zeros((2, WIDTH), dtype=np.float32)
    with pytest.raises(ConfigError, match=f"{WIDTH - 1} wide"):
        trained["ridge"].predict_embeddings(["a", "b"], vectors[:, 1:])
    with pytest.raises(ConfigError, match="revision"):
        trained["ridge"].predict_embeddings(["a", "b"], vectors, made_by={"revision": "0" * 64})
    for predictor in (trained["light_attention"], trained["lora"], Predictor.builtin()):
        with pytest.raises(ConfigError, match="give it sequences"):
            predictor.predict_embeddings(["a", "b"], vectors)


# What was computed before


@pytest.mark.parametrize("head", ["ridge", "mlp", "light_attention"])
def test_a_second_run_computes_no_embedding_again(
    head: str,
    folder: Path,
    model: Path,
    proteins: pd.DataFrame,
    trained: dict[str, Predictor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(language_model.LanguageModel, "__init__", refuse_to_load)
    config = configured(head, folder, model, proteins, f'output="{tmp_path / "again"}"')
    again = train(config)
    assert heads_in(again.folder) == heads_in(trained[head].folder)
    assert again.predict(proteins["sequence"].tolist()) == trained[head].predict(proteins["sequence"].tolist())


def test_a_store_of_its_own_is_used_where_one_is_named(
    folder: Path, model: Path, proteins: pd.DataFrame, tmp_path: Path
) -> None:
    changes = (f'output="{tmp_path / "run"}"', f'store="{tmp_path / "store"}"')
    train(configured("ridge", folder, model, proteins, *changes))
    settings = Settings(model=str(model), device="cpu")
    loaded: list[str] = []
    own = LanguageModelEncoder(settings, store=tmp_path / "store", report=loaded.append)
    own.encode(proteins["sequence"].tolist())
    assert "model" not in vars(own)  # all of them were there
    assert loaded == []


def test_folds_of_a_fine_tuned_model_leave_nothing_in_the_store(
    folder: Path, model: Path, proteins: pd.DataFrame, tmp_path: Path
) -> None:
    def spaces(*changes: str) -> int:
        store, output = tmp_path / f"store{len(changes)}", tmp_path / f"run{len(changes)}"
        given = (f'store="{store}"', f'output="{output}"', "trainer.max_epochs=1", "head.rank=1", *changes)
        train(configured("lora", folder, model, proteins, *given))
        return len(list(store.glob("*.sqlite")))

    assert spaces() == spaces("split.folds=3") == 2  # the model as it is, and as the final fit left it


# Other models


def test_another_model_under_the_same_path_is_refused(
    trained: dict[str, Predictor], proteins: pd.DataFrame, tmp_path: Path, fresh: list[str]
) -> None:
    model = save_tiny_model("esm2", tmp_path / "tiny")
    trained_here = train(configured("ridge", tmp_path, model, proteins))
    assert heads_in(trained_here.folder) == heads_in(trained["ridge"].folder)  # the same weights elsewhere
    shutil.rmtree(model)
    with pytest.raises(ArtifactError, match="tiny"):
        Predictor(trained_here.folder).predict(fresh)
    save_tiny_model("esm2", model, seed=1)
    with pytest.raises(ArtifactError, match="is not the checkpoint this predictor was trained with"):
        Predictor(trained_here.folder).predict(fresh)


def test_a_damaged_adapter_is_refused(trained: dict[str, Predictor], tmp_path: Path, fresh: list[str]) -> None:
    for number, damage in enumerate((lambda path: path.unlink(), lambda path: path.write_bytes(b"1" * 100))):
        trained["lora"].save(tmp_path / str(number))
        damage(tmp_path / str(number) / "adapter" / "adapter_model.safetensors")
        with pytest.raises(ArtifactError, match="adapter"):
            Predictor(tmp_path / str(number)).predict(fresh)


def test_a_fine_tuned_predictor_counts_its_adapter_among_its_files(trained: dict[str, Predictor]) -> None:
    names = {path.name for path in trained["lora"].model_files()}
    assert names == {"predictor.json", "head_plain.onnx", "adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize("name", ["prot_bert", "nowhere/at-all", "folder that is not there"])
def test_a_model_that_is_not_here_is_named_with_what_to_do(
    name: str, folder: Path, proteins: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError) as caught:
        train(configured("ridge", folder, Path(name), proteins, f'output="{tmp_path / "run"}"'))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


# Interrupted


@pytest.mark.parametrize("head", ["light_attention", "lora"])
def test_an_interrupted_run_goes_on_to_the_same_predictor(
    head: str,
    folder: Path,
    model: Path,
    proteins: pd.DataFrame,
    trained: dict[str, Predictor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = configured(head, folder, model, proteins, f'output="{tmp_path / "run"}"')
    said: list[Sequence[str]] = []

    def interrupt(_: object, values: dict[str, float], step: int | None = None) -> None:  # noqa: ARG001
        said.append(list(values))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training.Tracker, "metrics", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert len(said) == 1
    again = train(config, resume=True)
    assert heads_in(again.folder) == heads_in(trained[head].folder)
    assert again.manifest["encoder"] == trained[head].manifest["encoder"]
