"""Pretrained protein language models (ProtBERT, ProtT5, ESM-2, Ankh and relatives) through Transformers.

``LanguageModel`` runs a checkpoint; ``enzyme_stability.embeddings.encoder`` puts the store of done work before it.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from enzyme_stability.encoders import packing
from enzyme_stability.encoders.packing import Piece
from enzyme_stability.encoders.tokenisation import Tokenisation
from enzyme_stability.errors import ArtifactError, ConfigError, EnzymeStabilityError, MissingDependencyError
from enzyme_stability.profiling import before_batch

if TYPE_CHECKING:
    import torch

Pooling = Literal["mean", "residues"]
Precision = Literal["auto", "float32", "bfloat16"]
TokensOf = Callable[[Piece], np.ndarray]
"""Gives the tokens of a piece, shape (residues,); asked for when its batch is run, so that not all need be held."""


@dataclass(frozen=True)
class Architecture:
    """Where the parts of a family of models are.

    Attributes:
        model: Class of Transformers that loads the encoder.
        layers: Path of the list of layers.
        last_norm: Path of the normalisation after the last layer, or the empty string.
        window: Residues given at once where the checkpoint sets no lower limit. ESM-2 was trained on at most 1,022
            (doi 10.1126/science.ade2574); ProtBERT's last training phase used 2,048 tokens
            (doi 10.1109/TPAMI.2021.3095381); T5's relative positions set no limit and 2,046 keeps their table small.
    """

    model: str
    layers: str
    last_norm: str
    window: int


ARCHITECTURES = {
    "bert": Architecture("BertModel", "encoder.layer", "", 2046),
    "esm": Architecture("EsmModel", "encoder.layer", "encoder.emb_layer_norm_after", 1022),
    "t5": Architecture("T5EncoderModel", "encoder.block", "encoder.final_layer_norm", 2046),
}
"""The families that run as one stream of tokens; a model of another family runs one sequence after the other."""

DEFAULT_OVERLAP = 256
"""Residues that neighbouring windows share: longer than nearly all contacts along the chain."""

_OTHERS_WINDOW = 1022

_TOKENS_AT_ONCE = {"cpu": 1024, "cuda": 32_768, "mps": 8192}
"""Enough rows for matrix products at full rate; more only takes memory (benchmarks/encoder_speed.py)."""


class LanguageModel:
    """A checkpoint, ready to embed.

    What shares a batch with a sequence moves its embedding by less than 1e-5 of its length in float32 and 2e-2 in
    bfloat16, which by itself is off by about 1e-2 (families with random weights, width 256).

    Args:
        folder: Local checkpoint: config.json, tokeniser and safetensors.
        layer: Hidden layer: 0 is the token embedding, -1 the last layer with its normalisation.
        window: Longest stretch of residues given at once; None takes the family's. No more than there are positions
            where the model has a table of them.
        overlap: Residues that neighbouring windows share, at most half a window.
        precision: ``auto`` is bfloat16 where the processor (AVX-512 BF16, AMX) or NVIDIA GPU multiplies it natively,
            else float32.
        device: ``auto`` takes an NVIDIA or Apple GPU where there is one; or ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        token_budget: Tokens in a batch; None suits the device. Memory is bounded by it.
        threads: Threads of the processor; 0 leaves it to PyTorch.
        adapter: Folder of a low-rank update that is added to the weights.

    Raises:
        ArtifactError: The checkpoint or the adapter cannot be loaded, or the checkpoint lacks weights.
        ConfigError: There is no such layer or device, or the window does not fit.
        EnzymeStabilityError: The weights do not fit into memory.
        MissingDependencyError: PyTorch or Transformers is not installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        layer: int = -1,
        window: int | None = None,
        overlap: int = DEFAULT_OVERLAP,
        precision: Precision = "auto",
        device: str = "auto",
        token_budget: int | None = None,
        threads: int = 0,
        adapter: Path | None = None,
    ) -> None:
        try:
            import torch
            import transformers  # noqa: F401 - missing, it is to be told at once
        except ImportError:
            raise MissingDependencyError("A language model", "plm") from None
        if threads:
            torch.set_num_threads(threads)
        settings = read_settings(folder)
        self.folder = folder
        self.device = _device(device)
        self.dtype = getattr(torch, best_precision(device, precision))
        family = str(settings.get("model_type", ""))
        self._architecture = None if settings.get("is_decoder") else ARCHITECTURES.get(family)
        self.tokenisation = Tokenisation.of(folder, family)
        kind = self._architecture.model if self._architecture else None
        # An update is a small part of a weight: bfloat16 would round it away before it is added.
        self._model = self._load(kind, self.dtype if adapter is None else torch.float32)
        self._check_vocabulary()
        if adapter is not None:
            from enzyme_stability.encoders.adapters import merge_adapter

            self._model = merge_adapter(self._model, adapter).to(self.dtype)
        self.layers = int(self._model.config.num_hidden_layers)
        self.width = int(self._model.config.hidden_size)
        self.layer = self._cut_after(layer)
        self._move()
        self._first_position, positions = self._positions()
        self.window, self.overlap = self._window(positions, window, overlap)
        if self._architecture is ARCHITECTURES["t5"]:
            self._share_position_bias()
        self.token_budget = token_budget or _TOKENS_AT_ONCE.get(self.device.type, 1024)

    def _load(self, kind: str | None, dtype: torch.dtype) -> Any:
        return packing.load(self.folder, kind, dtype)

    def _move(self) -> None:
        try:
            self._model.eval().to(self.device)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            raise EnzymeStabilityError(
                f"the language model does not fit into the memory of {self.device}; "
                "set encoder.device to cpu, or encoder.precision to bfloat16"
            ) from None

    def _check_vocabulary(self) -> None:
        used = max(*self.tokenisation.before, *self.tokenisation.after, *self.tokenisation.table)
        known = self._model.get_input_embeddings().num_embeddings
        if used >= known:
            raise ArtifactError(f"{self.folder}: the tokeniser has token {used}, the model only those below {known}")

    def _positions(self) -> tuple[int, int | None]:
        """Number of the first position, and how many the model has; None where nothing limits them."""
        import torch

        for name, part in self._model.named_modules():
            if name.endswith("position_embeddings") and isinstance(part, torch.nn.Embedding):
                first = 0 if part.padding_idx is None else part.padding_idx + 1  # the ones before it mark padding
                return first, part.num_embeddings - first
        return 0, None if self._architecture else getattr(self._model.config, "max_position_embeddings", None)

    def _window(self, positions: int | None, window: int | None, overlap: int) -> tuple[int, int]:
        longest = None if positions is None else positions - self.tokenisation.specials
        usual = self._architecture.window if self._architecture else _OTHERS_WINDOW
        chosen = window if window is not None else usual if longest is None else min(usual, longest)
        if chosen < 1 or (longest is not None and chosen > longest):
            takes = "1 or more" if longest is None else f"1 to {longest}"
            raise ConfigError(f"encoder.window is {chosen}; this language model takes {takes} residues at once")
        return chosen, min(overlap, chosen // 2)

    def _cut_after(self, layer: int) -> int:
        """Drop the layers after the one asked for, and the last normalisation, which belongs to the last layer."""
        import torch

        number = layer if layer >= 0 else self.layers + 1 + layer
        if not 0 <= number <= self.layers:
            raise ConfigError(f"encoder.layer is {layer}; this language model has layers 0 to {self.layers}")
        if number < self.layers and self._architecture is not None:
            owner, name = self._owner(self._architecture.layers)
            setattr(owner, name, torch.nn.ModuleList(list(getattr(owner, name))[:number]))
            if self._architecture.last_norm:
                owner, name = self._owner(self._architecture.last_norm)
                setattr(owner, name, torch.nn.Identity())
        return number

    def _owner(self, path: str) -> tuple[Any, str]:
        *parents, name = path.split(".")
        owner = self._model
        for parent in parents:
            owner = getattr(owner, parent)
        return owner, name

    def _share_position_bias(self) -> None:
        """The table of relative positions for the longest sequence serves all, not one for the whole stream."""
        blocks = list(self._model.encoder.block)
        if not blocks:
            return
        first = blocks[0].layer[0].SelfAttention
        compute = first.compute_bias

        def for_longest(_queries: int, _keys: int, **where: Any) -> torch.Tensor:
            longest = packing.longest_in_stream()
            bias: torch.Tensor = compute(longest, longest, device=where.get("device"))
            return bias

        first.compute_bias = for_longest

    def embed(self, residues: Sequence[str], pooling: Pooling = "mean") -> Iterator[tuple[int, np.ndarray]]:
        """Embed sequences, yielding each as soon as it is done: the longest first.

        Every residue gets the mean of its vectors over the windows that hold it (one for all but long sequences);
        ``mean`` then averages over residues. Special tokens are never part of it.

        Yields:
            Index of the sequence, and its embedding: shape (width,) for ``mean``, (length, width) for ``residues``;
            float32.

        Raises:
            SequenceError: A sequence holds what is no residue.
            EnzymeStabilityError: A single window does not fit into memory.
        """
        tokens = [self.tokenisation.tokens(sequence) for sequence in residues]
        stretches = [packing.windows(len(own), self.window, self.overlap) for own in tokens]
        pieces = [Piece(k, *stretch) for k, own in enumerate(stretches) for stretch in own]
        left = [len(own) for own in stretches]
        partial: dict[int, np.ndarray] = {}
        for batch, hidden in self._batches(pieces, lambda p: tokens[p.sequence][p.start : p.stop]):
            start = 0
            for piece in batch:
                vectors = hidden[start : start + piece.length]
                start += piece.length
                k = piece.sequence
                if len(stretches[k]) == 1:
                    yield k, packing.pooled(vectors, None, pooling)
                    continue
                weights = packing.residue_weights(len(tokens[k]), stretches[k])
                if pooling == "mean":
                    share = packing.pooled(vectors, weights[piece.start : piece.stop], pooling)
                    partial[k] = partial.get(k, 0) + share
                else:
                    whole = partial.setdefault(k, np.zeros((len(tokens[k]), self.width), dtype=np.float32))
                    whole[piece.start : piece.stop] += packing.pooled(
                        vectors, weights[piece.start : piece.stop], pooling
                    )
                left[k] -= 1
                if not left[k]:
                    total = partial.pop(k)
                    yield k, total / len(tokens[k]) if pooling == "mean" else total

    def _batches(self, pieces: Sequence[Piece], tokens_of: TokensOf) -> Iterator[tuple[list[Piece], torch.Tensor]]:
        """Run all pieces; a batch that does not fit into memory is halved, and so is the budget of those to come."""
        specials = self.tokenisation.specials
        queue = deque(packing.batches(pieces, self.token_budget, specials))
        while queue:
            batch = queue.popleft()
            hidden = self._run(batch, tokens_of)
            if hidden is None:
                self.token_budget = max(1, sum(piece.length for piece in batch) // 2)
                queue = deque(packing.batches([*batch, *chain.from_iterable(queue)], self.token_budget, specials))
            else:
                yield batch, hidden

    def _run(self, batch: Sequence[Piece], tokens_of: TokensOf) -> torch.Tensor | None:
        """Hidden states of the residues of a batch, shape (residues, width); None if memory ran out."""
        import torch

        before_batch("language_model")
        try:
            with torch.inference_mode():
                return self._hidden(batch, tokens_of)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(batch) == 1:
            raise EnzymeStabilityError(
                f"a stretch of {batch[0].length} residues does not fit into memory; set encoder.window to fewer"
            )
        return None

    def _hidden(self, batch: Sequence[Piece], tokens_of: TokensOf) -> torch.Tensor:
        import torch

        before, after = self.tokenisation.before, self.tokenisation.after
        parts = [np.concatenate([before, tokens_of(piece), after]) for piece in batch]
        lengths = [len(part) for part in parts]
        ends = np.cumsum(lengths)
        inside = np.concatenate(
            [np.arange(end - n + len(before), end - len(after)) for n, end in zip(lengths, ends, strict=True)]
        )
        if self._architecture is None:
            states = torch.cat([self._alone(part) for part in parts])
        else:
            ids = torch.from_numpy(np.concatenate(parts).astype(np.int64)).to(self.device)
            positions = np.concatenate([np.arange(n) for n in lengths]) + self._first_position
            with packing.stream_of(lengths):
                found = self._model(**self._inputs(ids, torch.from_numpy(positions).to(self.device), lengths))
            states = found.last_hidden_state[0]
        return states[torch.from_numpy(inside).to(self.device)]

    def _inputs(self, ids: torch.Tensor, positions: torch.Tensor, _lengths: Sequence[int]) -> dict[str, torch.Tensor]:
        """What the model is given for a stream; ``ids`` and ``positions`` of its tokens have shape (tokens,)."""
        where = {} if self._architecture is ARCHITECTURES["t5"] else {"position_ids": positions[None]}
        return {"input_ids": ids[None], **where}

    def _alone(self, ids: np.ndarray) -> torch.Tensor:
        import torch

        tensor = torch.from_numpy(ids.astype(np.int64)).to(self.device)[None]
        found = self._model(input_ids=tensor, attention_mask=torch.ones_like(tensor), output_hidden_states=True)
        states: torch.Tensor = found.hidden_states[self.layer][0]
        return states


def read_settings(folder: Path) -> dict[str, Any]:
    """The checkpoint's config.json.

    Raises:
        ArtifactError: It is missing or damaged.
    """
    path = folder / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from None
    if not isinstance(settings, dict):
        raise ArtifactError(f"{path} is damaged: it holds no settings")
    return settings


def _best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda:{int(os.environ.get('LOCAL_RANK') or 0) % torch.cuda.device_count()}"  # processes share a machine
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(_best_device() if name == "auto" else name)
    except RuntimeError:
        raise ConfigError(f"encoder.device is '{name}'; give auto, cpu, cuda, cuda:1 or mps") from None
    found = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= found.get(device.type, 0):
        raise ConfigError(f"encoder.device is '{name}', which PyTorch does not find here; set it to auto or cpu")
    return device


def best_precision(device: str, precision: Precision) -> Literal["float32", "bfloat16"]:
    """What ``auto`` comes to: bfloat16 where the hardware multiplies it natively, else float32.

    Raises:
        MissingDependencyError: PyTorch is not installed.
    """
    if precision != "auto":
        return precision
    try:
        import torch
    except ImportError:
        raise MissingDependencyError("A language model", "plm") from None
    kind = (_best_device() if device == "auto" else device).partition(":")[0]
    native = False
    if kind == "cuda":
        native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    elif kind == "cpu":
        asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        native = any(getattr(torch.cpu, ask, bool)() for ask in asks)
    return "bfloat16" if native else "float32"


def _out_of_memory(error: BaseException) -> bool:
    import torch

    words = ("out of memory", "can't allocate memory", "not enough memory")  # of CUDA, and of processors by platform
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(some in str(error).lower() for some in words)
