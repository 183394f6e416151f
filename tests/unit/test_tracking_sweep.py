"""A sweep of Weights & Biases tries what the search with Optuna tries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from enzyme_stability.errors import ConfigError
from enzyme_stability.tracking import write_sweep

SPACE: dict[str, dict[str, Any]] = {
    "head.learning_rate": {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "head.dropout": {"kind": "float", "low": 0, "high": 0.5},
    "head.width": {"kind": "int", "low": 16, "high": 512, "log": True},
    "head.layers": {"kind": "int", "low": 1, "high": 4, "log": False},
    "encoder.model": {"kind": "choice", "values": ("facebook/esm2_t6_8M_UR50D", None, True, 3)},
}


def test_a_sweep_searches_the_space_that_optuna_searches(tmp_path: Path) -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from wandb.sdk.sweeps.scheduler.optuna import search_space_from_sweep_config

    write_sweep(SPACE, tmp_path / "sweep.yaml", "validation/mae", "minimize")
    sweep = yaml.safe_load((tmp_path / "sweep.yaml").read_text())
    assert search_space_from_sweep_config(sweep["parameters"]) == {
        "head.learning_rate": FloatDistribution(1e-5, 1e-2, log=True),
        "head.dropout": FloatDistribution(0.0, 0.5),
        "head.width": IntDistribution(16, 512, log=True),
        "head.layers": IntDistribution(1, 4),
        "encoder.model": CategoricalDistribution(["facebook/esm2_t6_8M_UR50D", "null", True, 3]),
    }
    assert (sweep["method"], sweep["metric"]) == ("bayes", {"name": "validation/mae", "goal": "minimize"})


def test_an_agent_passes_the_values_on_as_hydra_overrides(tmp_path: Path) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    write_sweep(SPACE, tmp_path / "sweep.yaml", "mae", "maximize", arguments=("builtin", "tracking.wandb=true"))
    sweep = yaml.safe_load((tmp_path / "sweep.yaml").read_text())
    command = create_sweep_command(sweep["command"])
    assert command == ["enzyme-stability", "train", "builtin", "tracking.wandb=true", "${args_no_hyphens}"]
    chosen = sweep["parameters"]["encoder.model"]["values"]
    asked = [{"args": {"encoder.model": {"value": value}, "head.width": {"value": 64}}} for value in chosen]
    overrides = [create_sweep_command_args(args)["args_no_hyphens"] for args in asked]
    read = [[o.value() for o in OverridesParser.create().parse_overrides(line)] for line in overrides]
    assert read == [["facebook/esm2_t6_8M_UR50D", 64], [None, 64], [True, 64], [3, 64]]


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "float", "low": 0, "high": 1, "log": True},
        {"kind": "float", "low": 2.0, "high": 1.0},
        {"kind": "int", "low": "1", "high": 4},
        {"kind": "choice", "values": []},
        {"kind": "choice", "values": [{"kind": "mlp"}]},
        {"kind": "normal", "low": 0, "high": 1},
        {},
    ],
)
def test_an_entry_that_makes_no_sense_is_named(tmp_path: Path, entry: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"'head\.width' has an entry"):
        write_sweep({"head.width": entry}, tmp_path / "sweep.yaml", "mae", "minimize")
    assert not (tmp_path / "sweep.yaml").exists()


def test_a_name_that_a_sweep_refuses_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="head/kind"):
        write_sweep({"head/kind": {"kind": "choice", "values": ["mlp"]}}, tmp_path / "s.yaml", "mae", "minimize")


def test_a_sweep_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").mkdir()
    with pytest.raises(ConfigError, match="cannot write the sweep"):
        write_sweep(SPACE, tmp_path / "sweep.yaml", "mae", "minimize")
