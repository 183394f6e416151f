"""Low-rank fine-tuning of a language model, with a perceptron on its pooled embedding.

Importing this module imports PyTorch and Lightning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as recomputed

from enzyme_stability.config import Lora as Settings
from enzyme_stability.config import Trainer
from enzyme_stability.encoders import packing
from enzyme_stability.encoders.adapters import add_adapter, check_family, save_adapter
from enzyme_stability.encoders.language_model import ARCHITECTURES, DEFAULT_OVERLAP, LanguageModel, read_settings
from enzyme_stability.encoders.packing import Piece
from enzyme_stability.encoders.tokenisation import Tokenisation
from enzyme_stability.errors import ConfigError
from enzyme_stability.heads.mlp import NetworkHead, Perceptron
from enzyme_stability.heads.network import Log, Targets, fit_network
from enzyme_stability.heads.pooled import Examples, Scaling
from enzyme_stability.processes import process_rank

ADAPTER = "adapter"
"""Folder of the adapter within that of the training."""

TOKENS_AT_ONCE = 4096
"""Tokens, with padding, whose activations are in memory at once."""


@dataclass(frozen=True)
class LoraFit:
    """A fine-tuned language model and its head.

    Attributes:
        head: Takes the adapted model's pooled embeddings, scaled by ``scaling``.
        scaling: Fitted on the embeddings of the model as it was.
        adapter: Folder for ``merge_adapter``.
    """

    head: NetworkHead
    scaling: Scaling
    adapter: Path


class AdaptedModel(nn.Module):
    """A language model with an adapter, and a perceptron on the mean over residues.

    Batches are padded, and the model is as Transformers and PEFT have it; for prediction the adapter is merged and the
    sequences are packed, which gives the same. Of a step with many tokens only the pooled embeddings are kept, and each
    batch is run again when its gradient is due: memory does not grow with the step, and the gradient is exact.

    Args:
        encoder: Model with an adapter. Its own dropout stays off, so it is trained as it will be used.
        perceptron: On the pooled embedding.
        scaling: Of the pooled embedding.
        tokenisation: Of the model.
        window: Residues given at once.
        overlap: Residues that neighbouring windows share.
        token_budget: Tokens in a batch, with padding.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self,
        encoder: Any,
        perceptron: Perceptron,
        scaling: Scaling,
        tokenisation: Tokenisation,
        window: int,
        overlap: int,
        token_budget: int = TOKENS_AT_ONCE,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.perceptron = perceptron
        self.register_buffer("mean", torch.from_numpy(scaling.mean))
        self.register_buffer("deviation", torch.from_numpy(scaling.deviation))
        self._tokenisation, self._window, self._overlap = tokenisation, window, overlap
        self._token_budget = token_budget
        self._padding = int(encoder.config.pad_token_id or 0)

    def train(self, mode: bool = True) -> AdaptedModel:
        """Dropout of the perceptron on or off."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, tokens: Sequence[np.ndarray]) -> torch.Tensor:
        """From the tokens of the residues of n proteins to (n, 3), see ``Output``."""
        if not len(tokens):  # a process without a share of a step; its gradient is 0, which the others wait for
            return self.forward([self._tokenisation.tokens("A")])[:0]
        out: torch.Tensor = self.perceptron((self.pool(tokens) - self.mean) / self.deviation)
        return out

    def pool(self, tokens: Sequence[np.ndarray]) -> torch.Tensor:
        """Mean over residues, each the mean over the windows that hold it: shape (n, width)."""
        stretches = [packing.windows(len(t), self._window, self._overlap) for t in tokens]
        shares = [packing.residue_weights(len(t), own) / len(t) for t, own in zip(tokens, stretches, strict=True)]
        pieces = [Piece(k, *stretch) for k, own in enumerate(stretches) for stretch in own]
        batches = list(padded_batches(pieces, self._token_budget, self._tokenisation.specials))
        again = torch.is_grad_enabled() and len(batches) > 1
        sums = []
        for batch in batches:
            arrays = [torch.from_numpy(a).to(self.perceptron.device) for a in self._padded(batch, tokens, shares)]
            sums.append(recomputed(self._sum, *arrays, use_reentrant=False) if again else self._sum(*arrays))
        owners = torch.tensor([piece.sequence for batch in batches for piece in batch], device=sums[0].device)
        return sums[0].new_zeros(len(tokens), sums[0].shape[1]).index_add(0, owners, torch.cat(sums))

    def _padded(
        self, batch: Sequence[Piece], tokens: Sequence[np.ndarray], shares: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids, 1 where there is a token, and the share of each token in its protein's mean."""
        before, after = self._tokenisation.before, self._tokenisation.after
        shape = len(batch), batch[0].length + self._tokenisation.specials
        ids = np.full(shape, self._padding, dtype=np.int64)
        real = np.zeros(shape, dtype=np.int64)
        weights = np.zeros(shape, dtype=np.float32)
        for k, (sequence, start, stop) in enumerate(batch):
            end = len(before) + stop - start
            ids[k, : end + len(after)] = np.concatenate([before, tokens[sequence][start:stop], after])
            real[k, : end + len(after)] = 1
            weights[k, len(before) : end] = shares[sequence][start:stop]
        return ids, real, weights

    def _sum(self, ids: torch.Tensor, real: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(input_ids=ids, attention_mask=real).last_hidden_state.float()
        summed: torch.Tensor = (hidden * weights[:, :, None]).sum(dim=1)
        return summed


def padded_batches(pieces: Sequence[Piece], budget: int, specials: int) -> Iterator[list[Piece]]:
    """Pieces in batches of at most ``budget`` tokens with padding, the longest first; a longer piece is alone."""
    batch: list[Piece] = []
    for piece in sorted(pieces, key=lambda p: -p.length):
        if batch and (len(batch) + 1) * (batch[0].length + specials) > budget:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def fit_lora(
    examples: Examples,
    settings: Settings,
    trainer: Trainer,
    seed: int,
    folder: Path,
    log: Callable[[str], Log],
    *,
    checkpoint: Path,
    layer: int = -1,
    window: int | None = None,
    overlap: int = DEFAULT_OVERLAP,
) -> LoraFit:
    """Fine-tune a language model on ``examples``.

    Args:
        examples: What to learn; ``embeddings`` are those of the model as it is, ``residues`` the sequences.
        settings: Of the adapter and the perceptron.
        trainer: How to train.
        seed: Seed of every random choice.
        folder: For checkpoints, which hold what is trained alone, and the adapter.
        log: Given a member's name, called with the figures of each of its epochs.
        checkpoint: Folder of the language model.
        layer: Hidden layer that is pooled, as ``LanguageModel`` takes it; so are ``window`` and ``overlap``.
        window: Residues given at once.
        overlap: Residues that neighbouring windows share.

    Raises:
        ArtifactError: The language model cannot be loaded, or the adapter not be written; or as ``fit_network``.
        ConfigError: The language model is of a family that cannot be adapted, has no such layer, or an ensemble is
            asked for.
        MissingDependencyError: PEFT is not installed.
    """
    if trainer.ensemble > 1:
        raise ConfigError("head lora has one adapter, so no ensemble: set trainer.ensemble to 1")
    check_family(str(read_settings(checkpoint).get("model_type", "")))
    base = LanguageModel(
        checkpoint, layer=layer, window=window, overlap=overlap, precision="bfloat16", device="cpu"
    )  # knows the window and the tokens; its weights are let go
    if not base.layer:
        raise ConfigError(f"encoder.layer is {layer}, the token embedding: head lora needs a layer with attention")
    place = (base.tokenisation, base.window, base.overlap)
    tokens = [base.tokenisation.tokens(sequence) for sequence in examples.residues]
    learnt = ~examples.validation
    targets = Targets.fit(examples.tm[learnt], examples.weights[learnt])
    scaling = Scaling.fit(examples.embeddings[learnt])
    encoder = load_encoder(checkpoint, base.layer, _dtype(trainer))
    del base
    torch.manual_seed(seed)
    perceptron = Perceptron(examples.embeddings.shape[1], settings.hidden, settings.dropout)
    adapted = add_adapter(encoder, settings.rank, settings.scale)
    network = AdaptedModel(adapted, perceptron, scaling, *place)

    def inputs(rows: np.ndarray) -> list[np.ndarray]:
        return [tokens[row] for row in rows]

    name = "member_0"
    fit_network(network, inputs, examples, targets, settings, trainer, seed, folder / name, log(name))
    if process_rank() == 0:
        save_adapter(adapted, folder / ADAPTER)
    return LoraFit(NetworkHead([perceptron], targets), scaling, folder / ADAPTER)


def load_encoder(checkpoint: Path, layer: int, dtype: torch.dtype) -> Any:
    """The model up to a layer, with the attention that comes with PyTorch.

    Args:
        checkpoint: Folder of the language model.
        layer: Number of the layer, from 1 on.
        dtype: Of its weights.

    Raises:
        ArtifactError: It cannot be loaded.
        ConfigError: It is of a family that cannot be adapted.
    """
    family = str(read_settings(checkpoint).get("model_type", ""))
    check_family(family)
    architecture = ARCHITECTURES[family]
    model = packing.load(checkpoint, architecture.model, dtype)
    model.set_attn_implementation("sdpa")
    if layer < model.config.num_hidden_layers:  # as LanguageModel has it
        model.set_submodule(architecture.layers, nn.ModuleList(model.get_submodule(architecture.layers)[:layer]))
        if architecture.last_norm:
            model.set_submodule(architecture.last_norm, nn.Identity())
    return model


def _dtype(trainer: Trainer) -> torch.dtype:
    """A frozen weight needs no more digits than it is multiplied with."""
    on_gpu = trainer.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    return torch.bfloat16 if on_gpu and trainer.precision == "bf16-mixed" else torch.float32
