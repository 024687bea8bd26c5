import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data import tokenizers

TEXTS = ["the cat sat on the mat\n", "the dog sat on the log\n", "then the cat and the dog sat\n"] * 20
BYTES = tokenizers.byte_tokenizer()
BPE = tokenizers.train_bpe(TEXTS, 276)


def test_a_byte_is_its_own_id():
    assert len(BYTES) == 257
    assert BYTES.eos_token == "<|endoftext|>"
    assert BYTES.eos_token_id == 256
    assert BYTES.encode("aé\n\0") == [97, 195, 169, 10, 0]


def test_bpe_learns_the_commonest_pairs():
    assert len(BPE) == 276
    assert BPE.eos_token_id == 275
    assert BPE.tokenize("the") == ["the"]
    assert BPE.tokenize("sat on") == ["sat", "Ġon"]


def test_bpe_does_not_depend_on_the_run():
    assert tokenizers.train_bpe(iter(TEXTS), 276).backend_tokenizer.to_str() == BPE.backend_tokenizer.to_str()
    assert tokenizers.fingerprint(tokenizers.train_bpe(TEXTS[:1] * 60 + TEXTS, 276)) != tokenizers.fingerprint(BPE)


@pytest.mark.parametrize("tokenizer", [BYTES, BPE], ids=["bytes", "bpe"])
@given(text=st.text())
def test_any_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(np.array(tokenizers.encoder(tokenizer)([text])[0], dtype=int)) == text


@given(texts=st.lists(st.text().filter(lambda text: "<|endoftext|>" not in text)))
def test_the_fast_path_gives_the_tokenizers_own_ids(texts):
    for tokenizer in (BYTES, BPE):
        assert [ids.tolist() for ids in tokenizers.encoder(tokenizer)(texts)] == [
            tokenizer.encode(text) for text in texts
        ]


@pytest.mark.parametrize("tokenizer", [BYTES, BPE], ids=["bytes", "bpe"])
def test_a_text_cannot_end_itself(tokenizer):
    ids = tokenizers.encoder(tokenizer)(["a<|endoftext|>b"])[0]
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.encode("a<|endoftext|>b")[1] == tokenizer.eos_token_id


def test_an_encoder_does_not_pad_or_cut_after_a_caller_did():
    tokenizer = tokenizers.train_bpe(TEXTS, 276)
    before = tokenizers.fingerprint(tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer(["the", "the cat sat"], padding=True, truncation=True, max_length=2)
    assert tokenizers.fingerprint(tokenizer) == before
    assert [len(ids) for ids in tokenizers.encoder(tokenizer)(["the", "the cat sat on the mat"])] == [1, 6]


@pytest.mark.parametrize("tokenizer", [BYTES, BPE], ids=["bytes", "bpe"])
def test_saved_and_loaded_it_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = tokenizers.load(str(tmp_path))
    assert tokenizers.fingerprint(loaded) == tokenizers.fingerprint(tokenizer)
    assert loaded.encode("the cat é <|endoftext|>") == tokenizer.encode("the cat é <|endoftext|>")
    assert loaded.decode(loaded.encode("don ' t , he said .")) == "don ' t , he said ."


def test_a_recipe_names_its_tokenizer(tmp_path):
    BPE.save_pretrained(tmp_path)
    same = tokenizers.fingerprint(BPE)
    assert tokenizers.fingerprint(tokenizers.resolve("bytes", [])) == tokenizers.fingerprint(BYTES)
    assert tokenizers.fingerprint(tokenizers.resolve("bpe:276", TEXTS)) == same
    assert tokenizers.fingerprint(tokenizers.resolve(str(tmp_path), [])) == same


def test_transformers_is_not_read_before_it_is_needed():
    code = "import sys, shoestring.data.tokens; print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bpe:many", r"'bpe:many': expected a vocabulary size after 'bpe:', as in 'bpe:4096'"),
        ("bpe:256", r"a BPE vocabulary of 256 cannot hold the bytes: expected 257 or more"),
        ("bpe:5000", r"the text yields a BPE vocabulary of \d+, not 5000: ask for less or give more text"),
        ("./absent", r"\./absent: no such folder"),
    ],
)
def test_misuse_of_a_name(spec, message):
    with pytest.raises(ValueError, match=message):
        tokenizers.resolve(spec, TEXTS)


def test_a_name_that_the_hub_cannot_give(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"nobody/nothing: no tokenizer could be read") as raised:
        tokenizers.load("nobody/nothing")
    assert "\n" not in str(raised.value)


def test_a_folder_without_a_tokenizer_and_a_damaged_one(tmp_path):
    with pytest.raises(ValueError, match=r"no tokenizer could be read"):
        tokenizers.load(str(tmp_path))
    BPE.save_pretrained(tmp_path)
    whole = (tmp_path / "tokenizer.json").read_text()
    for damaged in (whole[:1000], "{}", whole.replace('"BPE"', '"BPX"')):
        (tmp_path / "tokenizer.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"no tokenizer could be read") as raised:
            tokenizers.load(str(tmp_path))
        assert "\n" not in str(raised.value)


def test_what_the_library_says_of_a_full_disk_is_an_error_of_the_system(tmp_path, monkeypatch):
    def full(self, *_, **__):
        raise Exception("No space left on device (os error 28)")

    tokenizers.save(BPE, tmp_path / "a")
    assert tokenizers.fingerprint(tokenizers.load(str(tmp_path / "a"))) == tokenizers.fingerprint(BPE)
    monkeypatch.setattr(type(BPE), "save_pretrained", full)
    with pytest.raises(OSError, match=r"b: the tokenizer cannot be written \(No space left on device"):
        tokenizers.save(BPE, tmp_path / "b")


def test_a_tokenizer_without_an_end_of_text_or_without_words(tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "</s>": 1}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]").save_pretrained(tmp_path / "a")
    with pytest.raises(ValueError, match=r"names no end of text: set eos_token in its tokenizer_config\.json"):
        tokenizers.load(str(tmp_path / "a"))
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", eos_token="</s>").save_pretrained(
        tmp_path / "b"
    )
    with pytest.raises(ValueError, match="knows no word of plain text"):
        tokenizers.load(str(tmp_path / "b"))
