"""The archive for TorchServe holds all that is needed, and its handler answers each request of a batch for itself."""

from __future__ import annotations

import json
import sys
import tempfile
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from enzyme_stability import Predictor
from enzyme_stability.errors import ArtifactError, ConfigError, MissingDependencyError
from enzyme_stability.prediction import COLUMNS
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.torchserve.archive import write_archive
from enzyme_stability.torchserve.handler import FOLDER, answer

CHAIN, OTHER = AMINO_ACIDS * 5, AMINO_ACIDS[::-1] * 7


def expected(predictor: Predictor, sequences: list[str]) -> list[dict[str, Any]]:
    return [{name: asdict(row)[name] for name in COLUMNS} for row in predictor.predict(sequences)]


def refusal(predictor: Predictor, body: Any) -> str:
    ((status, content),) = answer(predictor, [body])
    assert status == 400
    return str(content["error"])


@pytest.fixture(scope="module")
def archive(builtin: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(builtin, tmp_path_factory.mktemp("archive") / "new")


def test_an_archive_holds_a_whole_predictor_and_no_pickle(archive: Path, builtin: Predictor, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path)
    about = json.loads((tmp_path / "MAR-INF" / "MANIFEST.json").read_text())
    assert about["runtime"] == "python"
    assert about["model"] == {"modelName": "builtin", "handler": "handler.py", "modelVersion": "1.0"}
    assert {path.suffix for path in tmp_path.rglob("*.*")} == {".py", ".json", ".onnx", ".md"}
    unpacked = Predictor(tmp_path / FOLDER, threads=1)
    assert unpacked.digest == builtin.digest
    assert unpacked.predict([CHAIN]) == builtin.predict([CHAIN])


def test_an_archive_gets_the_name_asked_for_and_replaces_an_older_one(builtin: Predictor, tmp_path: Path) -> None:
    (tmp_path / "tm.mar").write_text("old")
    assert write_archive(builtin, tmp_path, "tm") == tmp_path / "tm.mar"
    assert zipfile.is_zipfile(tmp_path / "tm.mar")
    assert [path.name for path in tmp_path.iterdir()] == ["tm.mar"]


def test_a_temporary_folder_of_the_name_of_the_model_is_left_alone(builtin: Predictor, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "kept").touch()
        write_archive(builtin, tmp_path, Path(folder).name)
        assert Path(folder, "kept").is_file()


def test_a_name_that_torchserve_does_not_take_is_refused(builtin: Predictor, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'my model' is no name"):
        write_archive(builtin, tmp_path, "my model")


def test_a_folder_that_cannot_be_written_is_one_sentence(builtin: Predictor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="cannot write"):
        write_archive(builtin, tmp_path / "file")


def test_without_the_archiver_the_extra_is_named(
    builtin: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_archiver", None)
    with pytest.raises(MissingDependencyError, match=r"enzyme-stability\[torchserve\]"):
        write_archive(builtin, tmp_path)


@pytest.mark.parametrize("key", ["instances", "data"])
def test_rows_are_those_of_predict_and_a_bad_sequence_costs_itself_only(key: str, builtin: Predictor) -> None:
    sequences = [CHAIN, "MK1", OTHER]
    assert answer(builtin, [{key: sequences}]) == [(200, {"predictions": expected(builtin, sequences)})]


def test_what_is_no_text_is_a_row_with_an_error(builtin: Predictor) -> None:
    ((status, content),) = answer(builtin, [{"instances": [7, CHAIN]}])
    assert status == 200
    assert [row["status"] for row in content["predictions"]] == ["error", "ok"]


def test_each_request_of_a_batch_gets_its_own_rows_whatever_becomes_of_the_others(builtin: Predictor) -> None:
    bodies = [{"data": [CHAIN]}, b"{", {"data": [OTHER, CHAIN]}, {"instances": [[1.0, 2.0]]}]
    bodies.append(json.dumps({"data": [OTHER]}).encode())
    answers = answer(builtin, bodies)
    assert [status for status, _ in answers] == [200, 400, 200, 400, 200]
    for place, sequences in {0: [CHAIN], 2: [OTHER, CHAIN], 4: [OTHER]}.items():
        assert answers[place][1] == {"predictions": expected(builtin, sequences)}
    assert "does not take embeddings" in answers[3][1]["error"]


@pytest.mark.parametrize("body", [{}, [], None, {"data": []}, {"data": "MKV"}, {"instances": {}}, b"\xff", "[1]"])
def test_a_body_without_instances_is_refused(body: Any, builtin: Predictor) -> None:
    assert refusal(builtin, body).startswith("the request")


@pytest.mark.parametrize("vectors", [[[1.0], [1.0, 2.0]], [["a"]], [[float("nan")]], [[10**400]], [[None]], [[]]])
def test_embeddings_that_make_no_sense_are_refused(vectors: list[Any], builtin: Predictor) -> None:
    assert "embedding" in refusal(builtin, {"instances": vectors})


def test_a_predictor_that_cannot_answer_is_no_fault_of_the_request(builtin: Predictor, tmp_path: Path) -> None:
    builtin.save(tmp_path / "damaged")
    (tmp_path / "damaged" / "head_plain.onnx").write_bytes(b"")
    ((status, content),) = answer(Predictor(tmp_path / "damaged"), [{"data": [CHAIN]}])
    assert status == 503
    assert "damaged" in content["error"]
