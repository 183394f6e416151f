"""The training loop: what is drawn, when it stops, what a killed run leaves, several processes."""

from __future__ import annotations

import logging
import os
import runpy
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up_examples import WIDTH, Journal, Killed, made_up, trainer, with_negligible, with_other_validation_tm

from enzyme_stability.config import Mlp, Trainer
from enzyme_stability.errors import ArtifactError, ConfigError, EnzymeStabilityError
from enzyme_stability.heads.mlp import Perceptron
from enzyme_stability.heads.network import BEST, LAST, Batches, Log, Targets, fit_network
from enzyme_stability.heads.pooled import Examples
from tiny_models import save_tiny_model

SETTINGS = Mlp(hidden=(16,), learning_rate=0.01, dropout=0.3)


def fit(
    examples: Examples,
    folder: Path,
    log: Log | None = None,
    settings: Mlp = SETTINGS,
    how: Trainer | None = None,
    seed: int = 0,
) -> Perceptron:
    torch.manual_seed(seed)
    network = Perceptron(WIDTH, settings.hidden, settings.dropout)
    features = torch.from_numpy(examples.embeddings)
    learnt = ~examples.validation
    targets = Targets.fit(examples.tm[learnt], examples.weights[learnt])
    fit_network(
        network,
        lambda rows: features[torch.from_numpy(rows)],
        examples,
        targets,
        settings,
        how or trainer(),
        seed,
        folder,
        log or Journal()("quiet"),
    )
    return network


def answers(network: Perceptron, examples: Examples) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = network(torch.from_numpy(examples.embeddings)).numpy()
    return found


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_processes_share_every_step_and_miss_no_protein(processes: int) -> None:
    rows = np.flatnonzero(np.arange(50) % 7)
    weights = np.random.default_rng(0).uniform(0.1, 2, 50)
    shares = [Batches(rows, weights, 8, seed=5) for _ in range(processes)]
    alone = Batches(rows, weights, 8, seed=5)
    for rank, share in enumerate(shares):
        share.rank, share.processes = rank, processes
    for epoch in range(3):
        for share in (alone, *shares):
            share.set_epoch(epoch)
        seen = []
        steps = list(zip(alone, *shares, strict=True))
        assert len(steps) == len(alone) == 6
        for (whole, factor), *parts in steps:
            together = np.concatenate([part for part, _ in parts])
            assert sorted(together) == sorted(whole)
            seen += list(together)
            # Lightning takes the mean over processes of what each makes of its share.
            losses = np.random.default_rng(epoch).normal(size=50)
            mean = np.mean([(weights * losses)[part].sum() * own for part, own in parts])
            assert mean == pytest.approx((weights * losses)[whole].sum() * factor)
            assert (weights * losses)[whole].sum() * factor == pytest.approx(
                np.average(losses[whole], weights=weights[whole])
            )
        assert sorted(seen) == list(rows)


def test_every_epoch_has_an_order_of_its_own() -> None:
    batches = Batches(np.arange(30), np.ones(30), 30, seed=1)
    orders = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        orders.append(next(iter(batches))[0].tolist())
    assert orders[0] == orders[2] != orders[1]


def test_the_best_epoch_is_kept_and_not_the_last(tmp_path: Path) -> None:
    # Noise that it can learn by heart: the validation loss soon rises again.
    noise = replace(made_up(60), tm=np.random.default_rng(0).normal(50, 10, 60))
    journal = Journal()
    wild = Mlp(hidden=(64,), learning_rate=0.02, dropout=0, weight_decay=0)
    network = fit(noise, tmp_path, journal("one"), wild, trainer(max_epochs=60, patience=6))
    losses = journal.of("validation_loss")
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 6
    learnt = ~noise.validation
    targets = Targets.fit(noise.tm[learnt], noise.weights[learnt])
    error = answers(network, noise)[:, 0] - (noise.tm - targets.mean) / targets.deviation
    found = np.average(error[noise.validation] ** 2, weights=noise.weights[noise.validation])
    assert found == pytest.approx(min(losses), rel=1e-5)
    assert found < 0.9 * losses[-1]


def test_validation_proteins_only_say_when_to_stop(tmp_path: Path) -> None:
    examples = made_up()
    journals = Journal(), Journal()
    fit(examples, tmp_path / "a", journals[0]("one"))
    fit(with_other_validation_tm(examples), tmp_path / "b", journals[1]("one"))
    assert journals[0].of("training_loss") == journals[1].of("training_loss")
    assert journals[0].of("validation_loss") != journals[1].of("validation_loss")
    last = [torch.load(tmp_path / name / LAST, weights_only=True)["state_dict"] for name in "ab"]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])


def test_a_protein_of_no_weight_does_not_matter(tmp_path: Path) -> None:
    examples = made_up()
    cold, hot = (answers(fit(with_negligible(examples, tm), tmp_path / str(tm)), examples)[:, 0] for tm in (30.0, 95.0))
    heavy = answers(fit(replace(examples, tm=with_negligible(examples, 95.0).tm), tmp_path / "heavy"), examples)[:, 0]
    np.testing.assert_allclose(cold, hot, atol=1e-4)
    assert np.abs(heavy - hot).max() > 0.05


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    examples = made_up()
    one, again, other = (
        answers(fit(examples, tmp_path / name, seed=seed), examples) for name, seed in (("a", 4), ("b", 4), ("c", 5))
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("epochs", [0, 1, 5])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, epochs: int) -> None:
    examples = made_up()
    whole, first, second = Journal(), Journal(epochs), Journal()
    network = fit(examples, tmp_path / "whole", whole("one"))
    with pytest.raises(Killed):
        fit(examples, tmp_path / "killed", first("one"))
    resumed = fit(examples, tmp_path / "killed", second("one"))
    assert first.figures + second.figures == whole.figures
    assert np.array_equal(answers(resumed, examples), answers(network, examples))


@pytest.mark.parametrize("patience", [2, 100])
def test_a_finished_run_is_not_trained_further(tmp_path: Path, patience: int) -> None:
    examples = replace(made_up(60), tm=np.random.default_rng(0).normal(50, 10, 60))
    how = trainer(max_epochs=12, patience=patience)
    network = fit(examples, tmp_path, how=how)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    journal = Journal()
    again = fit(examples, tmp_path, journal("one"), how=how)
    assert journal.figures == []
    assert np.array_equal(answers(again, examples), answers(network, examples))
    assert {path.name for path in files} == {LAST, BEST}
    assert (tmp_path / BEST).read_bytes() == files[tmp_path / BEST]


@pytest.mark.parametrize("epoch", [0, 3])
def test_a_loss_that_is_no_number_is_an_error(tmp_path: Path, epoch: int) -> None:
    examples = made_up()
    features = examples.embeddings.copy()
    journal = Journal()

    def spoil(figures: Any, at: int) -> None:
        journal("one")(figures, at)
        if at == epoch - 1:
            features[:] = np.nan

    if epoch == 0:
        features[:] = np.nan
    with pytest.raises(EnzymeStabilityError, match=r"no number after epoch .*head\.learning_rate"):
        fit(replace(examples, embeddings=features), tmp_path, spoil)
    assert len(journal.figures) == epoch + 1
    assert not list(tmp_path.iterdir())  # a second try starts afresh


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ArtifactError, match="cannot go on"):
        fit(made_up(), tmp_path / "file" / "run")


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file can grow beyond 30 kB, as on a disk that is nearly full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"cannot go on.*File too large"):
        fit(made_up(), tmp_path, settings=Mlp(hidden=(1000,)))
    assert not list(tmp_path.glob("*.ckpt"))  # nothing that looks whole


def test_a_damaged_checkpoint_is_an_error(tmp_path: Path) -> None:
    fit(made_up(), tmp_path, how=trainer(max_epochs=2))
    whole = (tmp_path / LAST).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"nothing of the kind", b""):
        (tmp_path / LAST).write_bytes(damaged)
        with pytest.raises(ArtifactError, match=f"{LAST} cannot be read, delete it"):
            fit(made_up(), tmp_path)


def test_a_checkpoint_of_another_network_is_an_error(tmp_path: Path) -> None:
    fit(made_up(), tmp_path, how=trainer(max_epochs=2))
    for hidden in ((17,), (16, 16)):
        with pytest.raises(ArtifactError, match="is of another network"):
            fit(made_up(), tmp_path, settings=SETTINGS.model_copy(update={"hidden": hidden}))


def test_an_interruption_stays_one(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(made_up(), tmp_path, interrupt)
    finally:
        signal.signal(signal.SIGINT, handler)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_a_gpu_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trainer does not fit this machine"):
        fit(made_up(), tmp_path, how=trainer(accelerator="gpu"))


def test_lightning_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fit(made_up(), tmp_path, how=trainer(max_epochs=2))
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    assert records == []
    assert capfd.readouterr() == ("", "")
    assert [logger.level for logger in loggers] == levels


DISTRIBUTED = """
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from made_up_examples import Journal, embed, made_up, trainer

from enzyme_stability.config import LightAttention, Lora, Mlp
from enzyme_stability.heads.light_attention import fit_light_attention
from enzyme_stability.heads.lora import fit_lora
from enzyme_stability.heads.mlp import fit_mlp
from enzyme_stability.processes import process_rank

torch.set_num_threads(1)
folder, checkpoint, devices = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
examples = made_up(21, longest=20)  # 17 to learn from: the second process has no share of the last step
how = trainer(devices=devices, batch_size=8, max_epochs=2, ensemble=2)
journal = Journal()
perceptrons = fit_mlp(
    examples.embeddings, examples, Mlp(hidden=(8,), dropout=0), how, 3, folder / "mlp", journal
)
attention = fit_light_attention(
    examples,
    LightAttention(channels=4, kernel=3, hidden=4, dropout=0),
    how.model_copy(update={"ensemble": 1}),
    3,
    folder / "attention",
    journal,
    embed,
)
tuned = fit_lora(
    replace(examples, embeddings=np.random.default_rng(0).normal(size=(21, 32))),
    Lora(hidden=(4,), rank=2, learning_rate=1e-3),
    how.model_copy(update={"ensemble": 1}),
    3,
    folder / "lora",
    journal,
    checkpoint=checkpoint,
)
networks = {"mlp": perceptrons.members, "attention": attention.members, "lora": tuned.head.members}
if process_rank() == 0:
    from safetensors.numpy import load_file

    weights = {
        f"{name}.{k}.{parameter}": values.detach().numpy()
        for name, members in networks.items()
        for k, member in enumerate(members)
        for parameter, values in member.named_parameters()
    }
    weights |= load_file(tuned.adapter / "adapter_model.safetensors")
    figures = {"losses": journal.of("validation_loss"), "training": journal.of("training_loss")}
    np.savez(folder / "weights.npz", **figures, **weights)
else:
    assert journal.figures == []
"""


def test_two_processes_learn_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = save_tiny_model("esm2", tmp_path / "checkpoint")
    script = tmp_path / "train.py"
    script.write_text(DISTRIBUTED)
    arguments = [[script, tmp_path / str(devices), checkpoint, str(devices)] for devices in (1, 2)]
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments[0]])
    runpy.run_path(str(script), run_name="__main__")
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, *arguments[1]],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])]), "OMP_NUM_THREADS": "1"},
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    one, two = (np.load(tmp_path / name / "weights.npz") for name in "12")
    assert set(one) == set(two)
    assert len(one["losses"]) == 2 * 4  # epochs of two perceptrons, of attention and of the language model
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-5, atol=1e-6, err_msg=name)
