"""Masked language models: how probable each of the twenty residues is at a place in a protein, given the rest of it.

Sequences longer than the window are cut as for embeddings, into evenly spaced windows that overlap; a place is read in
the one of them in which it is most central, and what is masked outside of that window makes no difference.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from enzyme_stability.encoders import packing
from enzyme_stability.encoders.known_checkpoints import KNOWN_CHECKPOINTS
from enzyme_stability.encoders.language_model import (
    DEFAULT_OVERLAP,
    LanguageModel,
    Precision,
    read_settings,
)
from enzyme_stability.encoders.packing import Piece
from enzyme_stability.encoders.tokenisation import quietly
from enzyme_stability.errors import ArtifactError, ConfigError, VariantError
from enzyme_stability.sequence import AMINO_ACIDS

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.float64]
PlaceArray = npt.NDArray[np.intp]
Advance = Callable[[int], None]
"""Called after each batch with the number of passes that it finished."""

SHARE_MASKED_IN_TRAINING = 0.15 * 0.8
"""Of tokens, in every ESM model: 15 % are to be predicted, 80 % of them masked (doi 10.1073/pnas.2016239118)."""


class Head(NamedTuple):
    """Where a family has its head.

    Attributes:
        model: Class of Transformers that loads encoder and head.
        name: The head in it.
    """

    model: str
    name: str


HEADS = {"bert": Head("BertForMaskedLM", "cls"), "esm": Head("EsmForMaskedLM", "lm_head")}
"""The families that were trained to name masked residues one by one."""


class Pass(NamedTuple):
    """One run of the model over a window.

    Attributes:
        group: Which answer it belongs to.
        window: The residues it sees, start and stop.
        masked: Places that are masked, inside the window.
        rows: Rows of the answer that it fills.
        places: Places in the sequence that these rows are of.
    """

    group: int
    window: tuple[int, int]
    masked: PlaceArray
    rows: PlaceArray
    places: PlaceArray


class MaskedLanguageModel(LanguageModel):
    """A checkpoint of the BERT or ESM line with the head it was trained with.

    Probabilities are over the model's whole vocabulary, as in doi 10.1101/2021.07.09.450648, so those of the twenty
    residues come to just under 1. In bfloat16 the encoder is run as for embeddings; its last hidden states are then
    turned into float32, and the head, its weights and the logarithm are float32. What shares a batch with a sequence
    moves a log probability by less than 1e-5 in float32.

    Args:
        folder: Local checkpoint: config.json, tokeniser and safetensors.
        window: As for ``LanguageModel``; so are all the others.
        overlap: Residues that neighbouring windows share, at most half a window.
        precision: That of the encoder.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        token_budget: Tokens in a batch; None suits the device.
        threads: Threads of the processor; 0 leaves it to PyTorch.

    Raises:
        ArtifactError: The checkpoint cannot be loaded, lacks weights, as those of the head, or has no mask token.
        ConfigError: The family has no such head, or a setting does not fit.
        EnzymeStabilityError: The weights do not fit into memory.
        MissingDependencyError: PyTorch or Transformers is not installed.
    """

    _head: Any

    def __init__(
        self,
        folder: Path,
        *,
        window: int | None = None,
        overlap: int = DEFAULT_OVERLAP,
        precision: Precision = "auto",
        device: str = "auto",
        token_budget: int | None = None,
        threads: int = 0,
    ) -> None:
        settings = read_settings(folder)
        family = str(settings.get("model_type", ""))
        if family not in HEADS or settings.get("is_decoder"):
            raise no_head(str(folder), family)
        self._family = family
        super().__init__(
            folder,
            window=window,
            overlap=overlap,
            precision=precision,
            device=device,
            token_budget=token_budget,
            threads=threads,
        )
        self._head = self._head.to(self.device)
        self._mask = self._mask_token()
        self._columns = self.tokenisation.table[list(AMINO_ACIDS.encode())]
        self._rescales = family == "esm" and bool(self._model.config.token_dropout)

    def _load(self, _kind: str | None, dtype: torch.dtype) -> Any:
        import torch

        model, head = HEADS[self._family]
        try:
            whole = packing.load(self.folder, model, dtype)
        except ArtifactError as error:
            if f"among them {head}." not in str(error):
                raise
            raise ArtifactError(
                f"{self.folder} holds an encoder without the weights of its head for masked residues; "
                "fetch the whole checkpoint, as with 'enzyme-stability models pull'"
            ) from None
        # A copy: its last weights may be those of the token embedding, which keep their precision.
        self._head = copy.deepcopy(getattr(whole, head)).to(torch.float32).eval()
        return whole.base_model

    def _mask_token(self) -> int:
        from transformers import AutoTokenizer

        with quietly():
            tokeniser = AutoTokenizer.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
        mask = tokeniser.mask_token_id
        known = self._model.get_input_embeddings().num_embeddings
        if mask is None or mask == tokeniser.unk_token_id or mask >= known:
            raise ArtifactError(f"the tokeniser in {self.folder} has no mask token that the model knows")
        stated = getattr(self._model.config, "mask_token_id", None)
        if stated not in (None, mask):
            raise ArtifactError(f"{self.folder}: the mask is token {mask} in the tokeniser, {stated} in config.json")
        return int(mask)

    def log_probabilities(self, residues: str, masked_places: Sequence[int] | None = None) -> FloatArray:
        """Natural logarithms of the probabilities of the twenty residues.

        Args:
            residues: The protein; ``X`` where a residue is unknown.
            masked_places: Places, from 0, that are masked all at once; None masks nothing and asks for every place.

        Returns:
            Shape (L, 20) for None, else (places, 20); columns as ``AMINO_ACIDS``.

        Raises:
            SequenceError: The sequence holds what is no residue.
            VariantError: A place is outside the sequence.
            EnzymeStabilityError: A single window does not fit into memory.
        """
        if masked_places is not None:
            return self.jointly_masked(residues, [masked_places])[0]
        stretches, home = self._cut(len(residues))
        passes = [
            Pass(0, stretch, np.empty(0, np.intp), own, own)
            for k, stretch in enumerate(stretches)
            if (own := np.flatnonzero(home == k)).size
        ]
        answer = np.empty((len(residues), len(AMINO_ACIDS)))
        for one, found in self._read(passes, self.tokenisation.tokens(residues)):
            answer[one.rows] = found
        return answer

    def jointly_masked(
        self, residues: str, groups: Sequence[Sequence[int]], advance: Advance = lambda _: None
    ) -> list[FloatArray]:
        """As ``log_probabilities`` for many groups of places, each group masked on its own.

        Args:
            residues: The protein; ``X`` where a residue is unknown.
            groups: Places, from 0, that are masked together.
            advance: Told how many passes a batch finished; there is one a group, in long proteins one for each window
                that the group is read in.

        Returns:
            For each group shape (its places, 20).

        Raises:
            SequenceError: The sequence holds what is no residue.
            VariantError: A place is outside the sequence.
            EnzymeStabilityError: A single window does not fit into memory.
        """
        tokens = self.tokenisation.tokens(residues)
        stretches, home = self._cut(len(tokens))
        passes = []
        for group, places in enumerate(groups):
            chosen = np.asarray(places, dtype=np.intp)
            if chosen.size and (chosen.min() < 0 or chosen.max() >= len(tokens)):
                raise VariantError(
                    f"places {chosen.min()} to {chosen.max()} are to be masked; the sequence has 0 to {len(tokens) - 1}"
                )
            for k in np.unique(home[chosen]):
                start, stop = stretches[k]
                rows = np.flatnonzero(home[chosen] == k)
                inside = chosen[(start <= chosen) & (chosen < stop)]
                passes.append(Pass(group, (start, stop), inside, rows, chosen[rows]))
        answers = [np.empty((len(places), len(AMINO_ACIDS))) for places in groups]
        for one, found in self._read(passes, tokens, advance):
            answers[one.group][one.rows] = found
        return answers

    def places_that_see(self, length: int, places: Sequence[int]) -> PlaceArray:
        """Places of a sequence of ``length`` residues that are read in a window with one of ``places`` in it."""
        stretches, home = self._cut(length)
        sees = np.array([any(start <= place < stop for place in places) for start, stop in stretches])
        return np.flatnonzero(sees[home])

    def _cut(self, length: int) -> tuple[list[tuple[int, int]], PlaceArray]:
        """The windows, and the number of the one in which each residue is most central."""
        stretches = packing.windows(length, self.window, self.overlap)
        place = np.arange(length)
        home, depth = np.zeros(length, np.intp), np.full(length, -1)
        for k, (start, stop) in enumerate(stretches):
            own = np.minimum(place - start, stop - 1 - place)
            home[own > depth] = k
            depth = np.maximum(depth, own)
        return stretches, home

    def _read(
        self, passes: Sequence[Pass], tokens: np.ndarray, advance: Advance = lambda _: None
    ) -> Iterator[tuple[Pass, FloatArray]]:
        """Run the passes over one sequence; the head sees the residues that are asked for alone."""
        import torch

        def masked(piece: Piece) -> np.ndarray:
            one = passes[piece.sequence]
            start, stop = one.window
            own = tokens[start:stop].copy()
            own[one.masked - start] = self._mask
            return own

        pieces = [Piece(k, 0, one.window[1] - one.window[0]) for k, one in enumerate(passes)]
        for batch, hidden in self._batches(pieces, masked):
            done = [passes[piece.sequence] for piece in batch]
            first = np.cumsum([0, *(piece.length for piece in batch)])
            rows = [at + one.places - one.window[0] for at, one in zip(first, done, strict=False)]
            with torch.inference_mode():
                states = hidden[torch.from_numpy(np.concatenate(rows)).to(self.device)].float()
                found = self._head(states).log_softmax(dim=-1).cpu().numpy()[:, self._columns].astype(np.float64)
            ends = np.cumsum([len(own) for own in rows])
            yield from zip(done, np.split(found, ends[:-1]), strict=True)
            advance(len(batch))

    def _inputs(self, ids: torch.Tensor, positions: torch.Tensor, lengths: Sequence[int]) -> dict[str, torch.Tensor]:
        """As for embeddings, but where ESM scales tokens by the share that is masked: of each sequence, not the stream.

        ESM's masked tokens are nought, and what is left is scaled to the sum it had in training.
        """
        if not self._rescales:
            return super()._inputs(ids, positions, lengths)
        import torch

        sizes = torch.tensor(lengths, device=self.device)
        owner = torch.repeat_interleave(torch.arange(len(lengths), device=self.device), sizes)
        masked = ids == self._mask
        share = torch.bincount(owner[masked], minlength=len(lengths)).float() / sizes
        vectors = self._model.get_input_embeddings()(ids).masked_fill(masked[:, None], 0.0)
        scaled = (vectors * (1 - SHARE_MASKED_IN_TRAINING) / (1 - share)[owner, None]).to(vectors.dtype)
        where = {"position_ids": positions[None]}
        return {"inputs_embeds": self._model.embeddings(inputs_embeds=scaled[None], **where), **where}


def no_head(name: str, family: str) -> ConfigError:
    """The error for a checkpoint of a family that was not trained to name masked residues one by one."""
    able = ", ".join(known.name for known in KNOWN_CHECKPOINTS.values() if known.family in HEADS)
    return ConfigError(
        f"{name} is a model of the family {family or 'unknown'}, which has no head that names single masked residues; "
        f"score substitutions with one of {able}"
    )
