"""A language model with the store of done work before it: what training, prediction and 'embed' all use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from enzyme_stability.config import LanguageModel as Settings
from enzyme_stability.embeddings.store import EmbeddingSpace, EmbeddingStore, store_folder
from enzyme_stability.encoders.checkpoints import find_checkpoint, fingerprint
from enzyme_stability.encoders.language_model import Pooling, best_precision, read_settings
from enzyme_stability.errors import ArtifactError

if TYPE_CHECKING:
    from enzyme_stability.encoders.language_model import LanguageModel

Advance = Callable[[int, int], None]
"""Called after each batch with the sequences and residues that it finished."""

_POLICY = "standard residues only"
_RESIDUES_AT_ONCE = 50_000
"""Of per-residue embeddings in memory: 200 MB at a width of 1024."""


class LanguageModelEncoder:
    """Turns residues into embeddings; what was embedded before is looked up, not computed.

    Args:
        settings: Which language model, and how it is run.
        pooling: ``mean`` for one vector a sequence, ``residues`` for one a residue.
        store: Folder of the store; None is the one all commands share.
        threads: Threads of the processor; 0 leaves it to PyTorch.
        adapter: Folder of a low-rank update of the weights.
        expected: Fingerprint that the checkpoint must have.
        report: Called with a sentence where the store cannot be used.

    Raises:
        ArtifactError: The checkpoint is not here, or not the one expected.
        MissingDependencyError: PyTorch or Transformers is not installed.
    """

    def __init__(
        self,
        settings: Settings,
        pooling: Pooling = "mean",
        *,
        store: Path | None = None,
        threads: int = 0,
        adapter: Path | None = None,
        expected: str | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.settings, self.pooling = settings, pooling
        self.checkpoint = find_checkpoint(settings.model)
        self.fingerprint = fingerprint(self.checkpoint)
        if expected not in (None, self.fingerprint):
            raise ArtifactError(
                f"{self.checkpoint} is not the checkpoint this predictor was trained with: its fingerprint is "
                f"{self.fingerprint[:12]}, not {str(expected)[:12]}"
            )
        self._adapter, self._threads = adapter, threads
        found = read_settings(self.checkpoint)
        self.width = int(found.get("hidden_size") or found.get("d_model") or 0)
        space = EmbeddingSpace(
            model=settings.model if "/" not in settings.model else Path(settings.model).name,
            revision=self.fingerprint + (f"+{fingerprint_of_adapter(adapter)}" if adapter else ""),
            layer=settings.layer,
            pooling=pooling,
            dtype=best_precision(settings.device, settings.precision),
            window=settings.window or 0,  # 0: the most the checkpoint takes, which the revision decides
            overlap=settings.overlap,
            policy=_POLICY,
        )
        half = pooling == "residues" and space.dtype == "bfloat16"  # float16 holds all that bfloat16 has computed
        self._store = EmbeddingStore(
            store or store_folder(), space, storage_dtype="float16" if half else "float32", report=report
        )

    @classmethod
    def of_predictor(
        cls, manifest: Mapping[str, Any], adapter: Path | None, *, store: Path | None = None, threads: int = 0
    ) -> Self:
        """The encoder that a predictor was trained with.

        Args:
            manifest: What the predictor's manifest says of its encoder.
            adapter: Folder of the low-rank update of the weights that belongs to the predictor.
            store: As for the class.
            threads: As for the class.

        Raises:
            ArtifactError: The checkpoint or the adapter is not here, or not the one expected.
            ConfigError: A setting makes no sense.
            KeyError: A setting is missing.
        """
        if adapter is not None and fingerprint_of_adapter(adapter) != manifest["adapter"]:
            raise ArtifactError(f"{adapter} is damaged: its checksum is not the one in the predictor's manifest")
        known = {name: manifest[name] for name in Settings.model_fields if name in manifest}
        return cls(
            Settings.parse(known, "the predictor's manifest"),
            manifest["pooling"],
            store=store,
            threads=threads,
            adapter=adapter,
            expected=manifest["fingerprint"],
        )

    @property
    def space(self) -> EmbeddingSpace:
        """What the embeddings are of."""
        return self._store.space

    @property
    def keeps(self) -> bool:
        """Whether what is computed is kept."""
        return self._store.writable

    @cached_property
    def model(self) -> LanguageModel:
        """The language model, loaded when it is first needed."""
        from enzyme_stability.encoders.language_model import LanguageModel

        settings = self.settings
        return LanguageModel(
            self.checkpoint,
            layer=settings.layer,
            window=settings.window,
            overlap=settings.overlap,
            precision=self.space.dtype,
            device=settings.device,
            token_budget=settings.token_budget,
            threads=self._threads,
            adapter=self._adapter,
        )

    def prepare(self, residues: Sequence[str], advance: Advance = lambda *_: None) -> None:
        """See that all embeddings are in the store, computing those that are not, the longest sequences first."""
        unique = list(dict.fromkeys(residues))
        there = self._store.contains(unique)
        missing = [sequence for sequence, found in zip(unique, there, strict=True) if not found]
        done = len(unique) - len(missing)
        advance(done, sum(map(len, unique)) - sum(map(len, missing)))
        for sequence, _ in self._computed(missing):
            advance(1, len(sequence))

    def prepare_together(self, residues: Sequence[str], rank: int, count: int) -> None:
        """Each process fills the store with its share, then with what is undone of the others': nobody waits."""
        for share in (residues[(rank + k) % count :: count] for k in range(count)):
            for part in in_parts(share):
                self.prepare(share[part])

    def encode(self, residues: Sequence[str], advance: Advance = lambda *_: None) -> list[np.ndarray]:
        """Embeddings in the order of ``residues``, float32: each (width,) or, by residue, (length, width)."""
        unique = list(dict.fromkeys(residues))
        found = {unique[k]: array for k, array in self._store.get(unique).items()}
        advance(len(found), sum(map(len, found)))
        for sequence, array in self._computed([sequence for sequence in unique if sequence not in found]):
            found[sequence] = array
            advance(1, len(sequence))
        return [found[sequence] for sequence in residues]

    def _computed(self, residues: list[str]) -> Iterator[tuple[str, np.ndarray]]:
        """Compute and keep, batch by batch: what is done survives whatever happens next."""
        if not residues:
            return
        waiting: list[tuple[str, np.ndarray]] = []
        size = 0
        for k, array in self.model.embed(residues, self.pooling):
            waiting.append((residues[k], array))
            size += len(residues[k])
            if size >= self.model.token_budget:
                yield from self._kept(waiting)
                waiting, size = [], 0
        yield from self._kept(waiting)

    def _kept(self, done: list[tuple[str, np.ndarray]]) -> list[tuple[str, np.ndarray]]:
        if done:
            self._store.put([sequence for sequence, _ in done], [array for _, array in done])
        return done


def in_parts(residues: Sequence[str], limit: int = _RESIDUES_AT_ONCE) -> Iterator[slice]:
    """Consecutive parts of at most ``limit`` residues (one sequence at least), for what must not be held whole."""
    start = size = 0
    for k, sequence in enumerate(residues):
        if k > start and size + len(sequence) > limit:
            yield slice(start, k)
            start, size = k, 0
        size += len(sequence)
    if len(residues) > start:
        yield slice(start, len(residues))


def fingerprint_of_adapter(folder: Path) -> str:
    """SHA-256 of an adapter's weights and settings."""
    import hashlib

    digest = hashlib.sha256()
    try:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            digest.update((folder / name).read_bytes())
    except OSError as error:
        raise ArtifactError(f"{folder} is no adapter: {error}") from None
    return digest.hexdigest()
