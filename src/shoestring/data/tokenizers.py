"""Tokenizers: one token a byte, byte-level BPE trained on the text at hand, or one that exists, by folder or name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

EOS = "<|endoftext|>"
SMALLEST_BPE = 257  # every byte, and the end of text
Encoder: TypeAlias = "Callable[[Sequence[str]], list[NDArray[np.integer[Any]]]]"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte of UTF-8, whose id is the byte's value, and the end of text, 256."""
    from tokenizers import Tokenizer, models

    vocabulary = {character: byte for byte, character in enumerate(_byte_characters())}
    return _wrapped(Tokenizer(models.BPE(vocab=vocabulary, merges=[])), whole_words=False)


def train_bpe(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE learned from texts; the same texts in the same order give the same tokenizer.

    vocab_size  all ids, the 256 bytes and the end of text included
    Raises ValueError where it is below 257, or where the texts hold too few different pairs to reach it.
    """
    if vocab_size < SMALLEST_BPE:
        raise ValueError(f"a BPE vocabulary of {vocab_size} cannot hold the bytes: expected {SMALLEST_BPE} or more")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1, initial_alphabet=sorted(_byte_characters()), show_progress=False, special_tokens=[]
    )
    backend.train_from_iterator(texts, trainer=trainer)
    reached = backend.get_vocab_size() + 1
    if reached != vocab_size:
        raise ValueError(
            f"the text yields a BPE vocabulary of {reached}, not {vocab_size}: ask for less or give more text"
        )
    return _wrapped(backend, whole_words=True)


def load(name_or_folder: str) -> PreTrainedTokenizerFast:
    """A tokenizer from a folder, from what the Hub's cache holds, or else from the Hub; no code of it is run.

    Raises ValueError where there is none, where it is not of the fast kind, where it knows no end of text, or where its
    vocabulary was not read with it.
    """
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        tokenizer = _from_pretrained(str(folder), offline=True)
    elif name_or_folder.startswith((".", "/", "~")):
        raise ValueError(f"{name_or_folder}: no such folder: expected a tokenizer saved by save_pretrained")
    else:
        try:
            tokenizer = _from_pretrained(name_or_folder, offline=True)
        except ValueError:
            tokenizer = _from_pretrained(name_or_folder, offline=False)
    return _checked(tokenizer, name_or_folder)


def resolve(spec: str, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """The tokenizer that a recipe names: "bytes", "bpe:4096" (trained on the texts), a folder, or a name on the Hub."""
    if spec == "bytes":
        return byte_tokenizer()
    if spec.startswith("bpe:"):
        size = spec.removeprefix("bpe:")
        if not size.isdecimal():
            raise ValueError(f"tokenizer {spec!r}: expected a vocabulary size after 'bpe:', as in 'bpe:4096'")
        return train_bpe(texts, int(size))
    return load(spec)


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a tokenizer's files. Raises OSError where they cannot be: the library says so by a bare Exception."""
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise OSError(f"{folder}: the tokenizer cannot be written ({error})") from error


def fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """A short SHA-256 over what turns text into ids; how a caller last padded or cut is no part of it."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    for passing in ("padding", "truncation"):
        backend.pop(passing, None)
    described = json.dumps([backend, tokenizer.eos_token_id], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    """A function from texts to their ids, for packing: nothing is added, padded or cut.

    The letters of a special token in a text are encoded as letters: a text cannot end itself. Bytes are copied, not
    looked up, where the tokenizer is `byte_tokenizer`.
    """
    if fingerprint(tokenizer) == _byte_fingerprint():
        return lambda texts: [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = True

    def encode(texts: Sequence[str]) -> list[NDArray[np.integer[Any]]]:
        encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(encoding.ids, dtype=np.uint32) for encoding in encodings]

    return encode


@cache
def _byte_fingerprint() -> str:
    return fingerprint(byte_tokenizer())


def _byte_characters() -> list[str]:
    """The character that byte-level tokenizers write for each byte: itself if printable, or one from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in set(printable) else chr(next(others)) for byte in range(256)]


def _wrapped(backend: Any, whole_words: bool) -> PreTrainedTokenizerFast:
    from tokenizers import decoders, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=whole_words)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([EOS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=EOS, bos_token=EOS, clean_up_tokenization_spaces=False
    )


def _from_pretrained(name: str, offline: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, local_files_only=offline, trust_remote_code=False)
    except Exception as error:
        # Of a damaged tokenizer.json the library says so by a bare Exception, of one without its configuration by a
        # TypeError; any other kind than these is a bug.
        if type(error) is not Exception and not isinstance(error, OSError | ValueError | KeyError | TypeError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{name}: no tokenizer could be read ({reason}): expected a folder or a name on the Hub"
        ) from error


def _checked(tokenizer: Any, name: str) -> PreTrainedTokenizerFast:
    if not tokenizer.is_fast:
        raise ValueError(f"{name}: a {type(tokenizer).__name__} without tokenizer.json: expected a fast tokenizer")
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{name}: the tokenizer names no end of text: set eos_token in its tokenizer_config.json")
    sample = tokenizer.encode("The quick brown fox", add_special_tokens=False)
    # A class that does not find its vocabulary file may make one of a few tokens and say nothing.
    if not sample or set(sample) <= {tokenizer.unk_token_id}:
        raise ValueError(
            f"{name}: the tokenizer knows no word of plain text: its vocabulary file was not read or is damaged"
        )
    return tokenizer
