"""A profile says where time and memory went, however the command ended, and costs nothing where none was asked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from enzyme_stability import profiling
from enzyme_stability.cli import main
from enzyme_stability.errors import ConfigError, DataError, MissingDependencyError
from enzyme_stability.profiling import TRACED_BATCHES, before_batch, profiled

REPORTS = {"profile.html", "profile.txt", "summary.json"}


def summary(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return content


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def spend_half_a_second() -> None:
    end = time.perf_counter() + 0.5
    while time.perf_counter() < end:
        sum(range(1000))


def multiply(batches: int) -> None:
    for _ in range(batches):
        before_batch("training")
        torch.ones(4, 4) @ torch.ones(4, 4)


def multiplications(folder: Path, work: str) -> int:
    events = json.loads((folder / f"{work}_trace.json").read_text())["traceEvents"]
    return sum(event["name"] == "aten::mm" for event in events)


def test_the_report_names_the_function_that_took_the_time(tmp_path: Path) -> None:
    with profiled(tmp_path / "new" / "folder"):
        spend_half_a_second()
    folder = tmp_path / "new" / "folder"
    assert names(folder) == REPORTS
    assert "spend_half_a_second" in (folder / "profile.txt").read_text()
    found = summary(folder)
    assert 0.5 <= found["wall_s"] < 30
    assert found["peak_memory_mib"] > 20
    assert found["ended_by"] is None


@pytest.mark.parametrize("error", [DataError("bad"), KeyboardInterrupt(), SystemExit(1)])
def test_a_command_that_fails_leaves_its_profile_and_its_error(error: BaseException, tmp_path: Path) -> None:
    def fail() -> None:
        with profiled(tmp_path):
            multiply(1)
            raise error

    with pytest.raises(type(error)):
        fail()
    assert summary(tmp_path)["ended_by"] == type(error).__name__
    assert names(tmp_path) == REPORTS | {"training_trace.json", "training_operators.txt"}
    assert multiplications(tmp_path, "training") == 1


def test_only_the_first_batches_are_traced(tmp_path: Path) -> None:
    with profiled(tmp_path):
        multiply(TRACED_BATCHES + 7)
    assert multiplications(tmp_path, "training") == TRACED_BATCHES
    assert summary(tmp_path)["traced_batches"] == {"training": TRACED_BATCHES}
    assert "aten::mm" in (tmp_path / "training_operators.txt").read_text()


def test_each_kind_of_batch_has_a_trace_of_its_own(tmp_path: Path) -> None:
    with profiled(tmp_path):
        before_batch("language_model")
        torch.ones(2, 2) @ torch.ones(2, 2)
        multiply(2)
        before_batch("language_model")  # its trace has ended with the first batch of the other kind
        torch.ones(2, 2) @ torch.ones(2, 2)
        multiply(2)
    assert multiplications(tmp_path, "language_model") == 1
    assert multiplications(tmp_path, "training") == 2


def test_sampling_ends_where_its_memory_would_grow_for_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "SAMPLED_S", 0.0)
    with profiled(tmp_path):
        multiply(1)
        spend_half_a_second()
    assert "spend_half_a_second" not in (tmp_path / "profile.txt").read_text()


def test_without_a_folder_nothing_is_profiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyinstrument", None)
    with profiled(None):
        multiply(2)


def test_without_pyinstrument_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyinstrument", None)
    with pytest.raises(MissingDependencyError, match=r"enzyme-stability\[profile\]"), profiled(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--profile: cannot write"), profiled(tmp_path / "file"):
        pytest.fail("the work began")


def test_a_profile_that_cannot_be_written_does_not_hide_what_went_wrong(tmp_path: Path) -> None:
    def fail() -> None:
        with profiled(tmp_path / "gone"):
            (tmp_path / "gone").rmdir()
            raise DataError("the true reason")

    with pytest.raises(DataError, match="the true reason"):
        fail()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["enzyme-stability", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_predict_with_the_built_in_model_imports_no_torch_for_its_profile(examples: Path, tmp_path: Path) -> None:
    code = "import sys; from enzyme_stability.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    words = ["predict", str(examples), "--output", str(tmp_path / "tm.csv"), "--profile", str(tmp_path / "profile")]
    subprocess.run([sys.executable, "-c", code, *words], check=True)
    assert names(tmp_path / "profile") == REPORTS
    assert "predict_chunk" in (tmp_path / "profile" / "profile.txt").read_text()
    assert (tmp_path / "tm.csv").is_file()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_predict_that_is_interrupted_leaves_its_profile(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    words = ["predict", "-", "--output", str(out / "tm.csv"), "--profile", str(tmp_path / "profile")]
    child = subprocess.Popen(
        [sys.executable, "-m", "enzyme_stability", *words],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A background shell has its children ignore the interrupt; a person's terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,  # noqa: PLW1509
    )
    assert child.stdin is not None
    child.stdin.write(b">p\nMKVLAAGIAKWEDRFYNQTH\n" * 5000)  # more than are predicted at once; it waits for the rest
    child.stdin.flush()
    while not any(out.iterdir()):
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode == 130
    assert summary(tmp_path / "profile")["ended_by"] == "KeyboardInterrupt"


def test_only_the_first_of_several_processes_that_train_writes_a_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in ("1", "0"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert run(monkeypatch, "train", "builtin", "--show", "--profile", tmp_path / rank) == 0
    assert names(tmp_path) == {"0"}


def test_embed_traces_the_language_model(examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tiny_models import save_tiny_model

    model = save_tiny_model("esm2", tmp_path / "model", width=16, layers=1)
    settings = ("--encoder", model, "--store", tmp_path / "store", "--output", tmp_path / "e.npy", "--device", "cpu")
    assert run(monkeypatch, "embed", examples, *settings, "--profile", tmp_path / "profile") == 0
    assert names(tmp_path / "profile") == REPORTS | {"language_model_trace.json", "language_model_operators.txt"}
    assert 1 <= summary(tmp_path / "profile")["traced_batches"]["language_model"] <= TRACED_BATCHES


def test_training_a_network_is_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_up_proteins: Any) -> None:
    made_up_proteins[:220].to_csv(tmp_path / "table.csv", index=False)
    settings = [
        *(f'data.path="{tmp_path / "table.csv"}"', f'output="{tmp_path / "run"}"', "encoder=composition"),
        *("encoder.blocks=[amino_acids]", "head=mlp", "head.hidden=[4]", "trainer.max_epochs=1"),
        *("trainer.accelerator=cpu", "split.calibration_share=0.4", "split.folds=0"),
    ]
    assert run(monkeypatch, "train", *settings, "--profile", tmp_path / "profile") == 0
    assert summary(tmp_path / "profile")["traced_batches"]["training"] >= 1
    assert "Backward" in (tmp_path / "profile" / "training_trace.json").read_text()
    assert "Self CPU time total" in (tmp_path / "profile" / "training_operators.txt").read_text()
