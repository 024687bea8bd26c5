import errno
import hashlib
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data import tokens as module
from shoestring.data.splits import Document
from shoestring.data.tokenizers import byte_tokenizer, fingerprint, train_bpe
from shoestring.data.tokens import Tokens, pack, packed

BYTES = byte_tokenizer()
BPE = train_bpe(["the cat sat on the mat\n"] * 20, 265)


def texts(*words):
    return [Document(word, "text", str(number)) for number, word in enumerate(words)]


def source(folder):
    (folder / "a.jsonl").write_text("".join(f'{{"text": "text {row}"}}\n' for row in range(100)))
    return str(folder / "a.jsonl")


def test_documents_end_with_the_end_of_text(tmp_path):
    tokens = pack(texts("ab", "é"), BYTES, tmp_path / "packed", source="abc")
    assert tokens.ids.tolist() == [97, 98, 256, 195, 169, 256]
    assert (len(tokens), tokens.count, tokens.text_bytes, tokens.documents, tokens.source) == (6, 6, 4, 2, "abc")
    assert tokens.bytes_per_token == 4 / 6
    raw = np.array([97, 98, 256, 195, 169, 256], dtype="<u2").tobytes()
    assert (tmp_path / "packed" / "tokens.bin").read_bytes() == raw
    assert tokens.sha256 == hashlib.sha256(raw).hexdigest()
    assert tokens.fingerprint == tokens.sha256[:16]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["packed", "tokens.bin", "tokens.json"]


def test_a_large_vocabulary_takes_four_bytes(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    for size, width in ((65_536, "<u2"), (65_537, "<u4")):
        backend = Tokenizer(models.WordLevel({f"w{number}": number for number in range(size)}, unk_token="w0"))
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="w7")
        tokens = pack(texts(f"w1 w{size - 1}"), tokenizer, tmp_path / str(size))
        assert tokens.ids.tolist() == [1, size - 1, 7]
        assert tokens.ids.dtype == width


PLAIN = st.text(max_size=30).filter(lambda text: BPE.eos_token not in text)  # `encode` reads it; packing keeps letters


@given(words=st.lists(PLAIN, min_size=1, max_size=20), batch=st.integers(1, 40))
def test_packing_in_parts_is_packing_at_once(tmp_path_factory, words, batch):
    folder = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH_CHARACTERS", batch)
        tokens = pack(texts(*words), BPE, folder / "a")
    expected = [token for word in words for token in [*BPE.encode(word), BPE.eos_token_id]]
    assert tokens.ids.tolist() == expected
    assert tokens.text_bytes == sum(len(word.encode()) for word in words)


def test_a_pack_is_made_once(tmp_path, monkeypatch):
    name = source(tmp_path)
    first = packed(name, "train", BYTES, tmp_path / "cache")
    assert first.documents == pytest.approx(90, abs=9)
    monkeypatch.setattr(module, "pack", None)
    again = packed(name, "train", BYTES, tmp_path / "cache")
    assert again.folder == first.folder
    assert again.ids.tolist() == first.ids.tolist()


def test_another_split_tokenizer_domain_or_text_is_another_pack(tmp_path):
    name = source(tmp_path)
    cache = tmp_path / "cache"
    folders = [packed(name, split, BYTES, cache).folder for split in ("train", "dev")]
    folders += [packed(name, "train", BPE, cache).folder, packed(name, "train", BYTES, cache, domains=["a"]).folder]
    (tmp_path / "a.jsonl").write_text('{"text": "other"}\n{"text": "texts"}\n')
    folders.append(packed(name, "train", BYTES, cache).folder)
    assert len(set(folders)) == 5


def test_without_a_split_all_is_packed(tmp_path):
    """Whatever its hash or its file's name would make it."""
    (tmp_path / "text").mkdir()
    for name in ("one_train", "one_test", "two"):
        lines = "".join(f'{{"text": "{name} {row}"}}\n' for row in range(60))
        (tmp_path / "text" / f"{name}.jsonl").write_text(lines)
    name, cache = str(tmp_path / "text"), tmp_path / "cache"
    whole = packed(name, None, BYTES, cache)
    split = [packed(name, one, BYTES, cache) for one in ("train", "dev", "test")]
    assert whole.documents == 180 > max(tokens.documents for tokens in split)
    text = BYTES.decode(whole.ids).split("<|endoftext|>")[:-1]
    assert sorted(text) == sorted(f"{stem} {row}" for stem in ("one_train", "one_test", "two") for row in range(60))
    assert len({tokens.folder for tokens in (whole, *split)}) == 4
    assert whole.source == split[0].source


def test_without_a_split_domains_are_chosen_too(tmp_path):
    (tmp_path / "text").mkdir()
    for name in ("one_train", "one_test", "two"):
        (tmp_path / "text" / f"{name}.txt").write_text(name)
    name, cache = str(tmp_path / "text"), tmp_path / "cache"
    one = packed(name, None, BYTES, cache, domains=["one"])
    assert sorted(BYTES.decode(one.ids).split("<|endoftext|>")) == ["", "one_test", "one_train"]
    with pytest.raises(ValueError, match="no document to pack"):
        packed(name, None, BYTES, cache, domains=["three"])


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOESTRING_CACHE", str(tmp_path / "mine"))
    assert packed(source(tmp_path), "train", BYTES).folder.parent == tmp_path / "mine" / "tokens"
    monkeypatch.delenv("SHOESTRING_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = packed(source(tmp_path), "train", BYTES).folder
    assert folder.parent == tmp_path / "home" / ".cache" / "shoestring" / "tokens"


def test_who_comes_second_takes_what_the_first_left(tmp_path):
    def overtaken():
        pack(texts("first"), BYTES, tmp_path / "packed")
        yield from texts("second")

    tokens = pack(overtaken(), BYTES, tmp_path / "packed")
    assert BYTES.decode(tokens.ids) == "first<|endoftext|>"
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


def test_several_processes_share_one_pack(tmp_path):
    code = (
        "import sys; from shoestring.data.tokens import packed; from shoestring.data.tokenizers import byte_tokenizer\n"
        "print(packed('python', 'dev', byte_tokenizer(), sys.argv[1]).sha256)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(answers) == 1
    assert len(list((tmp_path / "tokens").iterdir())) == 1


def test_killed_while_packing_nothing_stands_under_the_final_name(tmp_path):
    code = (
        "import os, signal, sys; from shoestring.data.tokens import pack; from shoestring.data.splits import Document\n"
        "from shoestring.data.tokenizers import byte_tokenizer\n"
        "def texts():\n"
        "    yield Document('a' * 2_000_000, '', ''); yield Document('b', '', '')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "pack(texts(), byte_tokenizer(), sys.argv[1])"
    )
    folder = tmp_path / "packed"
    assert subprocess.run([sys.executable, "-c", code, str(folder)]).returncode == -signal.SIGKILL
    assert not folder.exists()
    assert len(pack(texts("whole"), BYTES, folder)) == 6


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"packed: cannot be written \(No space left on device\)"):
        pack(texts("text"), BYTES, tmp_path / "packed")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_packed(tmp_path):
    with pytest.raises(ValueError, match=r"packed: no document to pack"):
        pack([], BYTES, tmp_path / "packed")
    assert not list(tmp_path.iterdir())
    pack(texts("text"), BYTES, tmp_path / "packed")
    with pytest.raises(ValueError, match=r"packed: exists already: remove it"):
        pack(texts("text"), BYTES, tmp_path / "packed")
    with pytest.raises(ValueError, match="no dev text in the domain b; it has a"):
        packed(source(tmp_path), "dev", BYTES, tmp_path / "cache", domains=["b"])


def test_ids_of_another_tokenizer_are_refused(tmp_path):
    pack(texts("text"), BYTES, tmp_path / "packed")
    assert len(Tokens.load(tmp_path / "packed", expect=fingerprint(BYTES))) == 5
    with pytest.raises(ValueError, match=rf"packed by tokenizer {fingerprint(BYTES)}, expected {fingerprint(BPE)}"):
        Tokens.load(tmp_path / "packed", expect=fingerprint(BPE))


def shortened(folder):
    path = folder / "tokens.bin"
    path.write_bytes(path.read_bytes()[:-2])


def edited(**changes):
    def edit(folder):
        path = folder / "tokens.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shortened, r"tokens\.bin: 8 bytes, expected 10: a torn file; remove .* and pack again"),
        (lambda folder: (folder / "tokens.bin").unlink(), r"tokens\.bin: 0 bytes, expected 10"),
        (lambda folder: (folder / "tokens.json").unlink(), r"packed: no packed tokens there: expected tokens\.json"),
        (lambda folder: (folder / "tokens.json").write_text("{"), r"tokens\.json: not JSON"),
        (lambda folder: (folder / "tokens.json").write_text("[]"), r"tokens\.json: not a header of packed tokens"),
        (edited(format="other"), r"tokens\.json: not a header of packed tokens"),
        (edited(dtype="float16"), r"tokens\.json: not a header of packed tokens"),
        (edited(dtype="uint32"), r"tokens\.bin: 10 bytes, expected 20"),
        (edited(count=6), r"tokens\.bin: 10 bytes, expected 12"),
        (edited(count="5"), r"tokens\.json: count is '5'"),
        (edited(documents=-1), r"tokens\.json: documents is -1"),
        (edited(sha256=None), r"tokens\.json: sha256 is None"),
    ],
)
def test_a_torn_or_foreign_folder_is_refused_by_name(tmp_path, damage, message):
    folder = pack(texts("text"), BYTES, tmp_path / "packed").folder
    damage(folder)
    with pytest.raises(ValueError, match=message) as raised:
        Tokens.load(folder)
    assert "\n" not in str(raised.value)
