"""Keys are found where wandb and mlflow look for them, and shown nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from enzyme_stability.config import Tracking
from enzyme_stability.errors import ConfigError
from enzyme_stability.tracking.backend import flatten
from enzyme_stability.tracking.credentials import redact, wandb_key

KEY = "0123456789abcdef" * 3


def test_key_comes_from_the_environment_or_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wandb_key() is None
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine api.wandb.ai login user password {KEY}\n")
    assert wandb_key() == KEY
    assert redact(f"key {KEY} at https://me:secret@host/path") == "key *** at https://***@host/path"
    monkeypatch.setenv("WANDB_API_KEY", "another")
    assert wandb_key() == "another"
    monkeypatch.delenv("WANDB_API_KEY")
    netrc.write_text("machine")
    assert wandb_key() is None


def test_an_address_with_a_password_is_refused() -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD"):
        Tracking.parse({"mlflow_uri": "https://me:secret@host"}, "train.yaml")


def test_a_key_among_the_hyperparameters_is_blotted_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", KEY)
    assert flatten({"a": {"b": KEY, "c": [1, KEY]}, "d": None}) == {"a.b": "***", "a.c": '[1, "***"]', "d": "null"}
