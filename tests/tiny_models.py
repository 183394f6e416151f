"""Language models of every supported kind, tiny, with random weights, saved the way the hub keeps the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers.utils import logging

RESIDUES = "LAGVESIKRDTPNQFYMHCWXUBZO"
KINDS = ("prot_bert", "esm2", "esm1b", "prot_t5", "ankh")
WIDTH = 32
LAYERS = 3
HEADS = 4
_T5_SPECIALS = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def save_tiny_model(kind: str, folder: Path, seed: int = 0, *, width: int = WIDTH, layers: int = LAYERS) -> Path:
    """Write the model and its tokeniser, and give the folder back."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    model = _MODELS[kind](width, layers)
    stir(model)
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    logging.enable_progress_bar()
    save_tokeniser(kind, folder)
    return folder


def save_tokeniser(kind: str, folder: Path) -> None:
    """Write the files of the tokeniser alone."""
    _TOKENISERS[kind](folder)


def stir(model: transformers.PreTrainedModel) -> None:
    """Give biases, norms and relative positions values that matter: fresh, they are nought, one and next to nothing."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) / 5)
            elif "relative_attention_bias" in name:
                parameter.mul_(8)


def sizes(width: int = WIDTH, layers: int = LAYERS) -> dict[str, Any]:
    """Settings of a model of the BERT line whose weights are as large as trained ones, so that attention matters."""
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "intermediate_size": 2 * width,
        "initializer_range": width**-0.5,
    }


def bert_config(width: int = WIDTH, layers: int = LAYERS) -> transformers.BertConfig:
    """ProtBERT's settings but the sizes; its table of positions is longer than its window too."""
    return transformers.BertConfig(vocab_size=30, max_position_embeddings=3000, pad_token_id=0, **sizes(width, layers))


def esm_config(positions: str, width: int = WIDTH, layers: int = LAYERS) -> transformers.EsmConfig:
    """Settings of ESM-2 (``rotary``) or ESM-1b (``absolute``) but the sizes."""
    return transformers.EsmConfig(
        vocab_size=33,
        pad_token_id=1,
        mask_token_id=32,
        max_position_embeddings=1026,
        position_embedding_type=positions,
        token_dropout=True,
        emb_layer_norm_before=positions == "absolute",
        **sizes(width, layers),
    )


def t5_config(kind: str, width: int = WIDTH, layers: int = LAYERS) -> transformers.T5Config:
    """Settings of ProtT5 or Ankh but the sizes."""
    ankh = kind == "ankh"
    return transformers.T5Config(
        vocab_size=144 if ankh else 128,
        d_model=width,
        d_kv=width // HEADS,
        d_ff=2 * width,
        num_layers=layers,
        num_heads=HEADS,
        feed_forward_proj="gated-gelu" if ankh else "relu",
        relative_attention_num_buckets=64 if ankh else 32,
        tie_word_embeddings=not ankh,
        decoder_start_token_id=0,
    )


_MODELS = {
    "prot_bert": lambda *size: transformers.BertModel(bert_config(*size)),
    "esm2": lambda *size: transformers.EsmModel(esm_config("rotary", *size)),
    "esm1b": lambda *size: transformers.EsmModel(esm_config("absolute", *size)),
    "prot_t5": lambda *size: transformers.T5EncoderModel(t5_config("prot_t5", *size)),
    "ankh": lambda *size: transformers.T5EncoderModel(t5_config("ankh", *size)),
}


def _settings(folder: Path, **settings: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _bert_tokeniser(folder: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *RESIDUES]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    _settings(folder, do_lower_case=False, tokenizer_class="BertTokenizer", model_max_length=512)


def _esm_tokeniser(folder: Path) -> None:
    words = ["<cls>", "<pad>", "<eos>", "<unk>", *RESIDUES, ".", "-", "<null_1>", "<mask>"]
    (folder / "vocab.txt").write_text("\n".join(words))
    _settings(folder, tokenizer_class="EsmTokenizer", model_max_length=1024)


def _prot_t5_tokeniser(folder: Path) -> None:
    file = sentencepiece_model_pb2.ModelProto()
    file.trainer_spec.model_type = file.trainer_spec.UNIGRAM
    file.trainer_spec.unk_id = 2
    kinds = file.SentencePiece
    for piece, kind in (("<pad>", kinds.CONTROL), ("</s>", kinds.CONTROL), ("<unk>", kinds.UNKNOWN)):
        file.pieces.add(piece=piece, score=0, type=kind)
    for letter in RESIDUES:
        file.pieces.add(piece=f"▁{letter}", score=-2, type=kinds.NORMAL)
    (folder / "spiece.model").write_bytes(file.SerializeToString())
    _settings(folder, **_T5_SPECIALS, extra_ids=100)


def _ankh_tokeniser(folder: Path) -> None:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -2.0) for letter in RESIDUES)]
    tokeniser = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokeniser.pre_tokenizer = pre_tokenizers.Split(Regex("^"), "isolated")  # the caller splits, into residues
    tokeniser.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokeniser.save(str(folder / "tokenizer.json"))
    _settings(folder, **_T5_SPECIALS)


_TOKENISERS = {
    "prot_bert": _bert_tokeniser,
    "esm2": _esm_tokeniser,
    "esm1b": _esm_tokeniser,
    "prot_t5": _prot_t5_tokeniser,
    "ankh": _ankh_tokeniser,
}
