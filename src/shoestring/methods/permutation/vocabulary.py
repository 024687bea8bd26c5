"""What the data side must know of a tokenizer: its special tokens, and where words and sentences begin and end."""

from __future__ import annotations

import json
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoestring.data import tokenizers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_NEEDED = 'pip install "shoestring[permutation]"'
_ADDED = {"sep_token": "<sep>", "cls_token": "<cls>", "pad_token": "<pad>"}
_SPACE = "▁"  # what SentencePiece writes for a space
_SENTENCE_ENDS, _CLOSING = ".!?…。！？", "\"'”’»)]}」』"
_TORN = "\ufffd"  # what a part of a character's bytes is decoded to: a symbol to Unicode
_UNIGRAM = 1  # TrainerSpec.ModelType in sentencepiece_model.proto


class Marks(NamedTuple):
    """Of each id of a vocabulary: (V,) bool.

    starts_word    the token begins with a space or punctuation, or is a special one
    closes_word    whatever follows it starts a word: special tokens, those that end with a line break or a tab, and
                   those whose form says so
    ends_sentence  it ends with a full stop and the like, or holds a line break, or is the end of text
    """

    starts_word: NDArray[np.bool_]
    closes_word: NDArray[np.bool_]
    ends_sentence: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A tokenizer as the data side sees it.

    sep, cls, pad, eos  ids; the end of text stands after each document
    size                V, all ids are below it
    """

    sep: int
    cls: int
    pad: int
    eos: int
    size: int
    starts_word: NDArray[np.bool_]
    closes_word: NDArray[np.bool_]
    ends_sentence: NDArray[np.bool_]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> Vocabulary:
        """Raises ValueError where words cannot be told apart, or a special token is lacking (see `prepared`)."""
        ids: dict[str, Any] = {}
        for name in ("sep", "cls", "pad", "eos"):
            known = getattr(tokenizer, f"{name}_token_id")
            if known is None:
                text = _ADDED.get(f"{name}_token", tokenizers.EOS)
                mend = f'tokenizer.add_special_tokens({{"{name}_token": "{text}"}})'
                raise ValueError(
                    f"the tokenizer has no {name}_token: expected sep, cls, pad and eos tokens; {mend} gives it one, "
                    "which the model's embedding needs a row for"
                )
            ids[name] = int(known)
        marked = marks(tokenizer)
        return cls(**ids, size=len(marked.starts_word), **marked._asdict())


def prepared(tokenizer: PreTrainedTokenizerFast) -> tuple[PreTrainedTokenizerFast, int]:
    """The same object with <sep>, <cls> and <pad> as special tokens where it lacked them, and how many ids were added;
    an end of text it must have.

    Its fingerprint changes with them: to be called before text is packed.
    """
    lacking = {name: text for name, text in _ADDED.items() if getattr(tokenizer, name) is None}
    return tokenizer, int(tokenizer.add_special_tokens(lacking)) if lacking else 0


def unknown_id(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The id of what a tokenizer does not know; None where there is none, or it stands for something else, too."""
    found = tokenizer.unk_token_id
    ids = {getattr(tokenizer, f"{name}_token_id") for name in ("sep", "cls", "pad", "eos")}
    return None if found is None or found in ids else int(found)


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a tokenizer's folder beside and rename it: under its own name it is whole."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    tokenizers.save(tokenizer, partial)
    partial.rename(folder)


def opened(spec: str, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """The tokenizer that a recipe names, as `shoestring.data.tokenizers.resolve`, or a SentencePiece file `*.model`.

    Raises ValueError where there is none, or a file is torn or of another kind than XLNet's (unigram).
    """
    return _sentencepiece(Path(spec).expanduser()) if spec.endswith(".model") else tokenizers.resolve(spec, texts)


def marks(tokenizer: PreTrainedTokenizerFast) -> Marks:
    """Where words and sentences begin and end, for SentencePiece, byte-level BPE, WordPiece and WordLevel vocabularies,
    and for BPE that marks where words end.

    Raises ValueError for a vocabulary of another kind. As in the official code a piece of punctuation starts a word.
    """
    vocabulary = tokenizer.get_vocab()
    read = _reader(tokenizer, vocabulary)
    size = max(len(tokenizer), max(vocabulary.values()) + 1)
    found = Marks(*(np.zeros(size, dtype=np.bool_) for _ in Marks._fields))
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    for token, number in vocabulary.items():
        if token in special:
            starts, closes, ends = True, True, token == tokenizer.eos_token
        else:
            text, starts, closes = read(token)
            starts = starts or text[:1].isspace() or _punctuation(text[:1])
            closes = closes or (text[-1:].isspace() and text[-1:] != " ")
            ends = "\n" in text or text.rstrip().rstrip(_CLOSING)[-1:] in tuple(_SENTENCE_ENDS)
        found.starts_word[number], found.closes_word[number], found.ends_sentence[number] = starts, closes, ends
    return found


def _punctuation(character: str) -> bool:
    return character not in ("", _TORN) and unicodedata.category(character)[0] in "PS"


def _reader(tokenizer: PreTrainedTokenizerFast, vocabulary: dict[str, int]) -> Callable[[str], tuple[str, bool, bool]]:
    """Gives a token's text, its space included, and whether its form says that it starts a word, or ends one."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = backend["model"]["type"]
    if kind == "WordLevel":
        return lambda token: (token, True, True)
    if kind == "WordPiece":
        prefix = backend["model"]["continuing_subword_prefix"]
        return lambda token: (token.removeprefix(prefix), not token.startswith(prefix), False)
    suffix = backend["model"].get("end_of_word_suffix") or ""
    if _mentions(backend, "ByteLevel"):
        from tokenizers.decoders import ByteLevel

        decoder = ByteLevel()
        return lambda token: (str(decoder.decode([token.removesuffix(suffix)])), False, _ends(token, suffix))
    if suffix:
        return lambda token: (token.removesuffix(suffix), False, _ends(token, suffix))
    if any(token.startswith(_SPACE) for token in vocabulary):
        return lambda token: (token.replace(_SPACE, " "), False, False)
    raise ValueError(
        f"a {kind} vocabulary: expected SentencePiece, byte-level BPE, WordPiece, WordLevel or BPE with an "
        "end_of_word_suffix, to tell words apart"
    )


def _ends(token: str, suffix: str) -> bool:
    return bool(suffix) and token.endswith(suffix)


def _mentions(backend: dict[str, Any], kind: str) -> bool:
    """Whether the pre-tokenizer or the decoder is of a kind, alone or in a sequence."""
    parts = [backend["pre_tokenizer"] or {}, backend["decoder"] or {}]
    for part in list(parts):
        parts += [*part.get("pretokenizers", []), *part.get("decoders", [])]
    return any(part.get("type") == kind for part in parts)


def _sentencepiece(path: Path) -> PreTrainedTokenizerFast:
    pieces = _pieces(path)
    from transformers import XLNetTokenizerFast

    # Given as vocab_file=, transformers leaves the file unread and says nothing: it wants a folder and this very name.
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(path, Path(folder) / "spiece.model")
        tokenizer = XLNetTokenizerFast.from_pretrained(folder, local_files_only=True)
    sample = tokenizer.encode("The quick brown fox", add_special_tokens=False)
    if len(tokenizer) < pieces or set(sample) <= {tokenizer.unk_token_id}:
        raise ValueError(
            f"{path}: {len(tokenizer)} of {pieces} pieces were read, or none of plain text: a damaged file"
        )
    return tokenizer


def _pieces(path: Path) -> int:
    """How many pieces a SentencePiece file holds. A file cut short may parse: then what stands after the pieces lacks.

    Raises ValueError where it is absent, torn, foreign, or no unigram model, which XLNet's tokenizer would misread.
    """
    try:
        from google.protobuf.message import DecodeError
        from sentencepiece import sentencepiece_model_pb2 as protocol
    except ImportError as error:
        raise ValueError(f"{path}: SentencePiece files need sentencepiece and protobuf: {_NEEDED}") from error
    if not path.is_file():
        raise ValueError(f"{path}: no such file: expected a SentencePiece model")
    model = protocol.ModelProto()  # type: ignore[attr-defined]  # made as the module is imported
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError(f"{path}: not a SentencePiece model, or a torn one: fetch or train it again") from error
    if not (len(model.pieces) and model.HasField("trainer_spec") and model.HasField("normalizer_spec")):
        raise ValueError(f"{path}: a torn SentencePiece model ({len(model.pieces)} pieces): fetch or train it again")
    if model.trainer_spec.model_type != _UNIGRAM:
        raise ValueError(f"{path}: a SentencePiece model of another kind: expected one trained by model_type=unigram")
    return len(model.pieces)


def asking(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A copy that gives a text or a pair as an XLNet is fine-tuned to read it: separators and class token behind,
    padding before. XLNet's own does so already, and is given back."""
    if tokenizer("a")["input_ids"][-1] == tokenizer.cls_token_id:
        return tokenizer
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    sep, cls = tokenizer.sep_token, tokenizer.cls_token
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = TemplateProcessing(
        single=f"$A:0 {sep}:0 {cls}:2",
        pair=f"$A:0 {sep}:0 $B:1 {sep}:1 {cls}:2",
        special_tokens=[(sep, tokenizer.sep_token_id), (cls, tokenizer.cls_token_id)],
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    given = {**tokenizer.special_tokens_map, "padding_side": "left", "model_input_names": names}
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **given)
