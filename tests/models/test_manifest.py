"""Manifests: what they say, what they find out, and that a name never stands for half a folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.models import manifest


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    partial, final = tmp_path / ".partial-step", tmp_path / "step"
    (partial / "inner").mkdir(parents=True)
    (partial / "weights.bin").write_bytes(b"abc")
    (partial / "inner" / "manifest.json").write_bytes(b"{}")
    manifest.seal(partial, final, averaged=[1, 2])
    return final


# by hand


def test_the_manifest_lists_size_and_checksum_of_every_file(sealed: Path) -> None:
    assert not sealed.with_name(".partial-step").exists()
    told = json.loads((sealed / "manifest.json").read_text())
    # sha256 of "abc": FIPS 180-2, appendix B.1
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert told["files"]["weights.bin"] == {"sha256": known, "bytes": 3}
    assert told["files"].keys() == {"weights.bin", "inner/manifest.json"}
    assert told["averaged"] == [1, 2]
    assert manifest.listed(sealed) == told["files"]
    manifest.verify(sealed)


def test_what_stood_under_the_name_is_replaced(sealed: Path) -> None:
    partial = sealed.with_name(".partial-step")
    partial.mkdir()
    (partial / "other.bin").write_bytes(b"d")
    manifest.seal(partial, sealed)
    assert sorted(path.name for path in sealed.iterdir()) == ["manifest.json", "other.bin"]
    assert [path.name for path in sealed.parent.iterdir()] == ["step"]


def test_a_kill_while_deleting_leaves_nothing_torn_under_the_name(sealed: Path, monkeypatch) -> None:
    def killed(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            (Path(path) / "weights.bin").unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        manifest.discard(sealed)
    assert [path.name for path in sealed.parent.iterdir()] == [".partial-step-discarded"]


# property


@given(content=st.binary(min_size=1, max_size=40), place=st.integers(0, 39), bit=st.integers(0, 7))
@settings(max_examples=30, deadline=None)
def test_any_flipped_bit_is_found(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, place: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    partial = folder / "partial"
    partial.mkdir()
    (partial / "file").write_bytes(content)
    manifest.seal(partial, folder / "whole")
    assert manifest.sha256(folder / "whole" / "file") == hashlib.sha256(content).hexdigest()
    changed = bytearray(content)
    changed[place % len(content)] ^= 1 << bit
    (folder / "whole" / "file").write_bytes(changed)
    with pytest.raises(ValueError, match="file: its checksum is not the manifest's: changed or damaged"):
        manifest.verify(folder / "whole")


# misuse


def test_torn_and_absent_files_are_named(sealed: Path) -> None:
    (sealed / "weights.bin").write_bytes(b"ab")
    with pytest.raises(ValueError, match=r"weights\.bin: 2 bytes, the manifest says 3: torn"):
        manifest.verify(sealed)
    (sealed / "weights.bin").unlink()
    with pytest.raises(ValueError, match=r"weights\.bin: absent, though the manifest lists it"):
        manifest.verify(sealed)


def test_a_folder_without_a_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    for foreign in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match=r"not a checkpoint: it has no manifest\.json"):
            manifest.verify(foreign)
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"file: not a checkpoint"):
        manifest.verify(file)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xff", b"[]", b"3", b"{}", b'{"files": []}', b'{"files": {"a": "b"}}', b'{"files": {"a": {}}}'],
)
def test_a_torn_or_foreign_manifest(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"manifest\.json: torn or foreign"):
        manifest.verify(tmp_path)
