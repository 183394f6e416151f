"""'predict --server' as people use it: what the command writes without a service, byte for byte."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from enzyme_stability import Predictor, __version__
from enzyme_stability.cli import main
from enzyme_stability.config.serving import ServingConfig
from enzyme_stability.configuration import compose
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.serving.access import create_key
from enzyme_stability.serving.app import create_app
from enzyme_stability.training import train
from served_app import running
from tiny_models import WIDTH, save_tiny_model

CHAIN = AMINO_ACIDS * 5


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Runs the command line in this process, in an empty folder; nothing may ever end in a traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENZYME_STABILITY_KEY", raising=False)

    def run(*arguments: str | Path, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "argv", ["enzyme-stability", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        outcome = Outcome(int(ended.value.code or 0), *capfd.readouterr())
        assert "Traceback" not in outcome.err
        return outcome

    return run


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(create_app(ServingConfig(threads=1, most_records=300))) as address:
        yield address


@pytest.fixture(scope="module")
def mixed() -> bytes:
    """A thousand records: good, changed and bad ones, some with growth temperatures and odd names."""
    choose = random.Random(3)
    rows = []
    for k in range(1000):
        chain = "".join(choose.choices(AMINO_ACIDS + "XU*", weights=[9] * 20 + [1, 1, 0.02], k=choose.randint(5, 250)))
        name = choose.choice([f"protein_{k}", "the same", "é|ü;'", "long" * 100, ""])
        rows.append((name, chain, choose.choice(["", "37", "71.5", "warm", "1000"])))
    text = pd.DataFrame(rows, columns=["id", "sequence", "ogt"]).to_csv(index=False)
    return (text + 'unclosed,"MKV\nlast,' + CHAIN + ",20\n").encode()


def refused(outcome: Outcome, *words: str) -> None:
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1, outcome.err
    for word in words:
        assert word in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.jsonl", "out.parquet", "out.csv.gz"])
def test_every_way_out_holds_the_same_bytes(cli: Cli, url: str, mixed: bytes, tmp_path: Path, name: str) -> None:
    (tmp_path / "in.csv").write_bytes(mixed)
    options = ("--growth-temperature", "45", "--coverage", "0.8")
    here = cli("predict", "in.csv", "-o", name, *options)
    expected = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    there = cli("predict", "in.csv", "-o", name, *options, "--server", url)
    assert here.code == there.code == 0
    assert (tmp_path / name).read_bytes() == expected
    assert there.err.partition(" in ")[0] == here.err.partition(" in ")[0]
    assert f"builtin {__version__} at {url}" in there.err


def test_every_way_in_gives_the_same_bytes(cli: Cli, url: str, examples: Path, mixed: bytes, tmp_path: Path) -> None:
    table = {"tag": ["x", "y"], "wild": [CHAIN] * 2, "mutant": [CHAIN[::-1], "MK1"], "growth": [60.0, None]}
    pd.DataFrame(table).to_parquet(tmp_path / "own.parquet")
    columns = ("--column", "mutant", "--id-column", "tag", "--growth-temperature-column", "growth")
    for arguments, stdin in (
        ((examples,), b""),
        (("-",), mixed),
        (("-",), examples.read_bytes()),
        (("own.parquet", *columns), b""),
        (("-",), b"id,sequence\n"),
    ):
        expected = cli("predict", *arguments, stdin=stdin)
        assert cli("predict", *arguments, "--server", url, stdin=stdin)[:2] == expected[:2]
        assert expected.code == 0


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (b">a\nMKV1LAARRWQ\n", ["--strict"]),
        (b">a\nMKVLAARRWQ\n", ["--coverage", "1.5"]),
        (b">a\nMKVLAARRWQ\n", ["--growth-temperature", "1000"]),
        (b"", []),
        (b"name,what\na,b\n", []),
    ],
)
def test_what_is_refused_without_a_service_is_refused_with_one_in_the_same_words(
    cli: Cli, url: str, content: bytes, options: list[str]
) -> None:
    expected = cli("predict", "-", "-o", "out.csv", *options, stdin=content)
    assert expected.code == 2
    assert cli("predict", "-", "-o", "out.csv", *options, "--server", url, stdin=content) == expected
    assert not Path("out.csv").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--model", "builtin"], "--model"),
        (["-m", "tm50"], "--model"),
        (["--threads", "0"], "--threads"),
        (["--store", "here"], "--store"),
        (["--report", "page.html"], "--report"),
    ],
)
def test_options_of_this_machine_are_refused_beside_a_service(
    cli: Cli, url: str, examples: Path, options: list[str], word: str
) -> None:
    refused(cli("predict", examples, "--server", url, *options), word, "--server")


def test_a_key_without_a_service_is_refused(cli: Cli, examples: Path) -> None:
    refused(cli("predict", examples, "--key-file", "key"), "--key-file", "--server")


def test_a_key_comes_from_a_file_or_else_from_the_environment(
    cli: Cli, examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = create_key(tmp_path / "keys.json", "laboratory")
    (tmp_path / "key").write_text(f"{key}\n")
    (tmp_path / "wrong").write_text("es_wrong")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "empty").touch()
    expected = cli("predict", examples).out
    with running(create_app(ServingConfig(threads=1, keys=tmp_path / "keys.json"))) as url:
        command = ("predict", examples, "--server", url)
        refused(cli(*command), "valid API key")
        assert cli(*command, "--key-file", "key").out == expected
        monkeypatch.setenv("ENZYME_STABILITY_KEY", key)
        assert cli(*command).out == expected
        refused(cli(*command, "--key-file", "wrong"), "valid API key")
        refused(cli(*command, "--key-file", "binary"), "binary")
        refused(cli(*command, "--key-file", "empty"), "empty")
        refused(cli(*command, "--key-file", "gone"), "gone")


def test_a_service_that_is_none_is_refused(cli: Cli, examples: Path) -> None:
    refused(cli("predict", examples, "--server", "tm.example.org"), "https://")
    refused(cli("predict", examples, "--server", "http://nowhere.invalid"), "nowhere.invalid cannot be reached")


def test_what_was_answered_before_a_service_ended_is_kept(cli: Cli, tmp_path: Path, mixed: bytes) -> None:
    (tmp_path / "in.csv").write_bytes(mixed)
    app = create_app(ServingConfig(threads=1))
    answered = 0

    async def ending(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        nonlocal answered
        if scope["type"] == "http" and scope["path"] == "/v1/predict":
            answered += 1
            if answered > 1:
                raise RuntimeError("the end")
        await app(scope, receive, send)

    with running(ending) as url:
        outcome = cli("predict", "in.csv", "-o", "out.csv", "--server", url)
    assert outcome.code == 2
    assert "100 sequences" in outcome.err or "of 100" in outcome.err
    assert outcome.err.splitlines()[-1].startswith(f"error: {url} failed")
    expected = cli("predict", "in.csv").out.splitlines()[:101]
    assert (tmp_path / "out.csv").read_text().splitlines() == expected


def test_without_httpx_the_install_command_is_given(examples: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['httpx'] = None; from enzyme_stability.cli import main; "
        f"sys.argv = ['enzyme-stability', 'predict', {str(examples)!r}, '--server', 'http://localhost:1']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ
    )
    assert done.returncode == 2
    assert done.stderr.strip().endswith("pip install 'enzyme-stability[client]'")
    assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def on_embeddings(tmp_path_factory: pytest.TempPathFactory, made_up_proteins: pd.DataFrame) -> Iterator[Predictor]:
    """A predictor on a tiny language model with random weights."""
    folder = tmp_path_factory.mktemp("embeddings")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ENZYME_STABILITY_STORE", str(folder / "store"))
        patched.setenv("HF_HUB_OFFLINE", "1")
        patched.chdir(folder)
        made_up_proteins[:220].to_csv("table.csv", index=False)
        model = save_tiny_model("esm2", folder / "tiny")
        settings = {
            "data.path": "table.csv",
            "head": "ridge",
            "head.inner_folds": 3,
            "encoder": "language_model",
            "encoder.model": f'"{model}"',
            "encoder.device": "cpu",
            "split.calibration_share": 0.4,
            "split.folds": 0,
            "output": f'"{folder / "predictor"}"',
        }
        yield train(compose([f"{name}={value}" for name, value in settings.items()]))


def test_embeddings_give_the_same_bytes(cli: Cli, on_embeddings: Predictor, tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).normal(size=(4, WIDTH)).astype(np.float32)
    names = ["one", "two", "né", "far|away"]
    np.save(tmp_path / "a.npy", vectors)
    torch.save({name: torch.from_numpy(v.copy()) for name, v in zip(names, vectors, strict=True)}, tmp_path / "b.pt")
    save_file({"embeddings": torch.from_numpy(vectors)}, tmp_path / "c.safetensors")
    with h5py.File(tmp_path / "d.h5", "w") as file:
        for name, vector in zip(names, vectors, strict=True):
            file[name] = vector
    (tmp_path / "broken.h5").write_bytes((tmp_path / "d.h5").read_bytes()[:900])
    with running(create_app(ServingConfig(threads=1, model=str(on_embeddings.folder), largest_upload=100_000))) as url:
        for name in ("a.npy", "b.pt", "c.safetensors", "d.h5"):
            expected = cli("predict", name, "--model", on_embeddings.folder, "--coverage", "0.8")
            assert expected.code == 0, expected.err
            assert cli("predict", name, "--server", url, "--coverage", "0.8").out == expected.out
        refused(cli("predict", "broken.h5", "--server", url), "damaged")
        np.save(tmp_path / "large.npy", np.zeros((2000, WIDTH), dtype=np.float32))
        refused(cli("predict", "large.npy", "--server", url), "bytes")
