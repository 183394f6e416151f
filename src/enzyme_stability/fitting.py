"""Fits a predictor to a table: encode, set proteins apart, fit the head, calibrate, write the folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enzyme_stability.config import (
    Boosting,
    Composition,
    LanguageModel,
    LightAttention,
    Lora,
    Mlp,
    Ridge,
    StackedHead,
    TrainConfig,
)
from enzyme_stability.data.splits import split_by_cluster
from enzyme_stability.domain import ApplicabilityDomain
from enzyme_stability.embeddings.precomputed import look_up
from enzyme_stability.encoders.composition import CompositionEncoder, amino_acid_frequencies
from enzyme_stability.errors import ConfigError, DataError
from enzyme_stability.heads.onnx_head import HeadOutput, OnnxHead
from enzyme_stability.heads.pooled import Examples, FittedHead, Memory, Scaling, pooled_to_onnx
from enzyme_stability.manifest import write_manifest
from enzyme_stability.prediction import Prediction
from enzyme_stability.predictor import PLAIN, WITH_GROWTH, Predictor
from enzyme_stability.processes import process_count, process_rank, wait_for_all
from enzyme_stability.progress import Meter
from enzyme_stability.reference import COVERAGE, Reference, logged_rows
from enzyme_stability.sequence import clean_sequence
from enzyme_stability.training_table import MINIMUM_PROTEINS
from enzyme_stability.uncertainty import ConformalInterval

if TYPE_CHECKING:
    import pandas as pd

    from enzyme_stability.embeddings.encoder import LanguageModelEncoder

LogOf = Callable[[str], Callable[[Mapping[str, float], int], None]]
"""Given the name of a network, what to call with the figures of each of its epochs."""

_STOPS_EARLY = (Boosting, Mlp, LightAttention, Lora)
_LEAST_VALIDATION = 8


@dataclass(frozen=True)
class Encoded:
    """Embeddings of all proteins of a table, and the encoder that made them.

    Attributes:
        embeddings: One vector a protein, shape (n, width), float32.
        encoder: What made them.
    """

    embeddings: np.ndarray
    encoder: CompositionEncoder | LanguageModelEncoder

    def __getitem__(self, rows: np.ndarray) -> Encoded:
        """Those of some proteins."""
        return Encoded(self.embeddings[rows], self.encoder)


@dataclass(frozen=True)
class _Fitted:
    """Heads by kind, what each says of the calibration proteins, and what is written beside them."""

    heads: dict[str, bytes]
    calibration: dict[str, HeadOutput]
    adapter: Path | None = None
    pooling: str = "mean"


def encode(table: pd.DataFrame, config: TrainConfig, report: Callable[[str], None]) -> Encoded:
    """Embed all proteins of a table, or look them up: in ``data.embeddings``, else what the store holds already."""
    encoder: CompositionEncoder | LanguageModelEncoder
    if isinstance(config.encoder, Composition):
        encoder = CompositionEncoder(config.encoder.blocks)
    else:
        from enzyme_stability.embeddings.encoder import LanguageModelEncoder

        encoder = LanguageModelEncoder(config.encoder, store=config.store, report=report)
    residues = table["residues"].tolist()
    if config.data.embeddings is not None:
        return Encoded(look_up(config.data.embeddings, encoder, table), encoder)
    if isinstance(encoder, CompositionEncoder):
        return Encoded(encoder.encode(residues), encoder)
    unique = list(dict.fromkeys(residues))
    with Meter(len(unique), sum(map(len, unique)), report) as meter:
        if process_count() > 1 and encoder.keeps:
            encoder.prepare_together(unique, process_rank(), process_count())
        return Encoded(np.stack(encoder.encode(residues, meter.advance)), encoder)


def set_apart(table: pd.DataFrame, config: TrainConfig) -> np.ndarray:
    """``train``, ``validation`` or ``calibration`` for each protein, shape (n,); clusters stay together.

    Only heads that stop early have validation proteins.
    """
    share, clusters = config.split.calibration_share, table["cluster"].to_numpy()
    parts = split_by_cluster(clusters, {"train": 1 - share, "calibration": share}, config.seed).astype(object)
    if isinstance(config.head, _STOPS_EARLY):
        learn = np.flatnonzero(parts == "train")
        share = config.split.validation_share
        parts[learn] = split_by_cluster(clusters[learn], {"train": 1 - share, "validation": share}, config.seed)
        if (parts == "validation").sum() < _LEAST_VALIDATION:
            raise DataError("too few proteins are left to say when to stop: raise split.validation_share")
    return parts


def fit_predictor(
    table: pd.DataFrame,
    encoded: Encoded,
    config: TrainConfig,
    folder: Path,
    *,
    checkpoints: Path,
    log: LogOf,
    training: Mapping[str, Any] | None = None,
) -> Predictor:
    """Fit and write a predictor.

    Args:
        table: As ``read_training_table`` gives it.
        encoded: The embeddings of its proteins.
        config: Everything that decides the run.
        folder: Where to write.
        checkpoints: Where networks keep their checkpoints; those that are there are taken up.
        log: Where the figures of each epoch go.
        training: What the model card needs to know beside what is counted here; None for a predictor that is soon
            thrown away, so that what a language model fine-tuned for it makes is kept beside it, not in the store.

    Raises:
        DataError: There are too few proteins for a part of the split.
        ArtifactError: The folder cannot be written.
    """
    parts = set_apart(table, config)
    learn = parts != "calibration"
    examples = Examples(
        embeddings=encoded.embeddings,
        tm=table["tm_celsius"].to_numpy(dtype=float),
        growth_temperature=table["growth_temperature"].to_numpy(dtype=float),
        weights=table["weight"].to_numpy(dtype=float),
        clusters=table["cluster"].to_numpy(),
        validation=parts == "validation",
        residues=tuple(table["residues"]),
    )
    store = folder / "store" if training is None and isinstance(config.head, Lora) else config.store
    fits: dict[type, Callable[[Examples, Examples, Encoded, TrainConfig, Path, LogOf], _Fitted]] = {
        StackedHead: _fit_stacked,
        LightAttention: _fit_light_attention,
        Lora: partial(_fit_lora, store=store),
    }
    fit = fits.get(type(config.head), _fit_pooled)
    fitted = fit(examples[learn], examples[~learn], encoded, config, checkpoints, log)
    intervals = {}
    for kind, out in fitted.calibration.items():
        tm = examples.tm[~learn]
        use = np.isfinite(examples.growth_temperature[~learn]) if kind == WITH_GROWTH else np.full(tm.shape, True)
        intervals[kind] = ConformalInterval.fit(tm[use], out.tm, out.lower, out.upper, config.interval.upper_tail_share)
    residues = table["residues"]
    domain = ApplicabilityDomain.fit(
        residues[learn].str.len().to_numpy(),
        amino_acid_frequencies(residues[learn].tolist()),
        amino_acid_frequencies(residues[~learn].tolist()),
        fitted.calibration[PLAIN].similarity,
        config.domain.flagged_share,
        config.domain.nonstandard_share,
    )
    write_manifest(
        folder,
        name=config.run_name,
        description=config.description,
        encoder=_encoder_manifest(config, encoded, fitted),
        heads=fitted.heads,
        intervals=intervals,
        domain=domain,
        training={
            **(training or {}),
            "train_proteins": int(learn.sum()),
            "calibration_proteins": int((~learn).sum()),
        },
        reference=_reference(table[~learn], fitted, intervals, domain),
        adapter=fitted.adapter,
    )
    return Predictor(folder, store=store)


def _reference(
    calibration: pd.DataFrame,
    fitted: _Fitted,
    intervals: Mapping[str, ConformalInterval],
    domain: ApplicabilityDomain,
) -> Reference:
    """What the log would hold had the calibration proteins been asked for."""
    import pandas as pd

    parts = []
    for kind, out in fitted.calibration.items():
        asked = calibration if kind == PLAIN else calibration[calibration["growth_temperature"].notna()]
        residues = asked["residues"].tolist()
        try:
            lower, upper = intervals[kind].interval(out.tm, out.lower, out.upper, COVERAGE)
        except ConfigError:  # too few of them for that coverage: no widths are kept
            lower = upper = np.full(out.tm.shape, np.nan)
        reasons = domain.reasons(
            [clean_sequence(r) for r in residues], amino_acid_frequencies(residues), out.similarity
        )
        answers = zip(*np.round([out.tm, lower, upper], 2), reasons, out.similarity.astype(float), strict=True)
        predictions = [
            Prediction("", len(sequence), tm, low, high, not why, "ok", "", near)
            for sequence, (tm, low, high, why, near) in zip(residues, answers, strict=True)
        ]
        growth = None if kind == PLAIN else asked["growth_temperature"].tolist()
        parts.append(logged_rows(residues, predictions, growth_temperature=growth))
    return Reference.of(pd.concat(parts, ignore_index=True), minimum=1)


def _encoder_manifest(config: TrainConfig, encoded: Encoded, fitted: _Fitted) -> dict[str, Any]:
    settings = config.encoder.model_dump(mode="json")
    if isinstance(encoded.encoder, CompositionEncoder):
        return settings
    from enzyme_stability.embeddings.encoder import fingerprint_of_adapter

    own = Path(settings["model"])
    if own.is_dir():  # a relative path would mean another folder elsewhere
        settings["model"] = str(own.resolve())
    of_this_machine = {"device": "auto", "token_budget": None}
    more = {
        "pooling": fitted.pooling,
        "width": encoded.encoder.width,
        "fingerprint": encoded.encoder.fingerprint,
        "trained_in": encoded.encoder.space.dtype,
    }
    adapter = {"adapter": fingerprint_of_adapter(fitted.adapter)} if fitted.adapter else {}
    return {**settings, **of_this_machine, **more, **adapter}


def _fit_stacked(
    learn: Examples, rest: Examples, encoded: Encoded, config: TrainConfig, _checkpoints: Path, _log: LogOf
) -> _Fitted:
    from enzyme_stability.heads.onnx_export import to_onnx
    from enzyme_stability.heads.stacked import fit_stack

    assert isinstance(config.head, StackedHead)  # noqa: S101 - tells the type checker
    assert isinstance(encoded.encoder, CompositionEncoder)  # noqa: S101
    stack = fit_stack(
        learn.embeddings,
        encoded.encoder.columns,
        learn.tm,
        learn.clusters,
        learn.growth_temperature,
        config.head,
        config.seed,
        config.threads,
    )
    heads = {PLAIN: to_onnx(stack, with_growth_temperature=False)}
    if stack.trees_with_growth is not None and _enough_growth(rest):
        heads[WITH_GROWTH] = to_onnx(stack, with_growth_temperature=True)
    return _Fitted(heads, {kind: _said(head, kind, rest) for kind, head in heads.items()})


def _enough_growth(rest: Examples) -> bool:
    return bool(np.isfinite(rest.growth_temperature).sum() >= MINIMUM_PROTEINS // 4)


def _said(head: bytes, kind: str, rest: Examples) -> HeadOutput:
    """What a head says of the calibration proteins, those with a known growth temperature where it takes one."""
    if kind == PLAIN:
        return OnnxHead(head).predict(rest.embeddings)
    known = np.isfinite(rest.growth_temperature)
    return OnnxHead(head).predict(rest.embeddings[known], rest.growth_temperature[known])


def _fit_pooled(
    learn: Examples, rest: Examples, _encoded: Encoded, config: TrainConfig, checkpoints: Path, log: LogOf
) -> _Fitted:
    scaling = Scaling.fit(learn.embeddings)
    memory = Memory.fit(scaling(learn.embeddings), config.seed)
    heads = {}
    for kind in (PLAIN, WITH_GROWTH):
        own, features, growth_scaling = learn, scaling(learn.embeddings), None
        if kind == WITH_GROWTH:
            known = np.isfinite(learn.growth_temperature)
            enough = known.sum() >= MINIMUM_PROTEINS // 2 and _enough_growth(rest)
            stops_early = isinstance(config.head, _STOPS_EARLY)
            if not enough or (stops_early and learn.validation[known].sum() < _LEAST_VALIDATION):
                continue
            own = learn[known]
            growth_scaling = Scaling.fit(own.growth_temperature[:, None])
            features = np.concatenate([features[known], growth_scaling(own.growth_temperature[:, None])], axis=1)
        prefix = "" if kind == PLAIN else f"{kind}/"
        head = _fit_head(features, own, config, checkpoints / kind, _prefixed(log, prefix))
        heads[kind] = pooled_to_onnx(head, scaling, memory, growth_scaling)
    return _Fitted(heads, {kind: _said(head, kind, rest) for kind, head in heads.items()})


def _prefixed(log: LogOf, prefix: str) -> LogOf:
    return lambda name: log(prefix + name)


def _fit_head(features: np.ndarray, examples: Examples, config: TrainConfig, folder: Path, log: LogOf) -> FittedHead:
    if isinstance(config.head, Ridge):
        from enzyme_stability.heads.ridge import fit_ridge

        return fit_ridge(features, examples, config.head, config.seed)
    if isinstance(config.head, Mlp):
        from enzyme_stability.heads.mlp import fit_mlp

        return fit_mlp(features, examples, config.head, config.trainer, config.seed, folder, log)
    from enzyme_stability.heads.trees import fit_trees_head

    assert isinstance(config.head, Boosting)  # noqa: S101 - tells the type checker
    return fit_trees_head(features, examples, config.head, config.seed, config.threads)


def _fit_light_attention(
    learn: Examples, rest: Examples, _encoded: Encoded, config: TrainConfig, checkpoints: Path, log: LogOf
) -> _Fitted:
    from enzyme_stability.embeddings.encoder import LanguageModelEncoder, in_parts
    from enzyme_stability.heads.light_attention import fit_light_attention

    assert isinstance(config.head, LightAttention)  # noqa: S101 - tells the type checker
    assert isinstance(config.encoder, LanguageModel)  # noqa: S101
    encoder = LanguageModelEncoder(config.encoder, "residues", store=config.store)
    scaling = Scaling.fit(learn.embeddings)
    memory = Memory.fit(scaling(learn.embeddings), config.seed)
    head = fit_light_attention(
        learn, config.head, config.trainer, config.seed, checkpoints / PLAIN, log, encoder.encode
    ).to_onnx(scaling, memory)
    run, residues = OnnxHead(head), list(rest.residues)
    outputs = [run.predict(encoder.encode(residues[part])) for part in in_parts(residues)]
    said = HeadOutput(*(np.concatenate(values) for values in zip(*outputs, strict=True)))
    return _Fitted({PLAIN: head}, {PLAIN: said}, pooling="residues")


def _fit_lora(
    learn: Examples,
    rest: Examples,
    encoded: Encoded,
    config: TrainConfig,
    checkpoints: Path,
    log: LogOf,
    *,
    store: Path | None,
) -> _Fitted:
    from enzyme_stability.embeddings.encoder import LanguageModelEncoder
    from enzyme_stability.heads.lora import fit_lora

    assert isinstance(config.head, Lora)  # noqa: S101 - tells the type checker
    assert isinstance(config.encoder, LanguageModel)  # noqa: S101
    assert isinstance(encoded.encoder, LanguageModelEncoder)  # noqa: S101
    tuned = fit_lora(
        learn,
        config.head,
        config.trainer,
        config.seed,
        checkpoints / PLAIN,
        log,
        checkpoint=encoded.encoder.checkpoint,
        layer=config.encoder.layer,
        window=config.encoder.window,
        overlap=config.encoder.overlap,
    )
    wait_for_all()  # the adapter is written by one process
    adapted = LanguageModelEncoder(config.encoder, store=store, adapter=tuned.adapter)
    known, asked = (np.stack(adapted.encode(list(part.residues))) for part in (learn, rest))
    head = pooled_to_onnx(tuned.head, tuned.scaling, Memory.fit(tuned.scaling(known), config.seed))
    return _Fitted({PLAIN: head}, {PLAIN: OnnxHead(head).predict(asked)}, adapter=tuned.adapter)
