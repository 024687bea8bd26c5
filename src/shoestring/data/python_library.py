"""The built-in corpus: the modules of Python's own standard library and the topics of its manual."""

from __future__ import annotations

import ast
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from shoestring.data.splits import Document, Split

# Each top-level module's subject; those in none are "other".
DOMAINS = {
    "concurrency": (
        "_threading_local asynchat asyncio asyncore concurrent contextvars multiprocessing queue sched "
        "selectors signal socketserver subprocess threading tracemalloc"
    ),
    "files": (
        "_compression _pyio bz2 dbm filecmp fileinput fnmatch genericpath glob gzip io linecache lzma "
        "ntpath os pathlib posixpath shelve shutil sqlite3 stat tarfile tempfile zipapp zipfile"
    ),
    "formats": (
        "_compat_pickle _markupbase aifc base64 binhex chunk colorsys configparser copyreg csv html imghdr "
        "json pickle pickletools plistlib quopri sndhdr struct sunau tomllib uu wave xdrlib xml"
    ),
    "language": (
        "__future__ _collections_abc _opcode_metadata _py_abc _weakrefset abc ast codeop collections "
        "contextlib copy dataclasses dis enum functools imp importlib inspect keyword modulefinder opcode "
        "operator pkgutil reprlib runpy symtable token tokenize types typing warnings weakref zipimport"
    ),
    "network": (
        "cgi cgitb email ftplib http imaplib ipaddress mailbox mailcap mimetypes netrc nntplib nturl2path "
        "poplib smtpd smtplib socket ssl telnetlib urllib uuid webbrowser wsgiref xmlrpc"
    ),
    "numbers": (
        "_pydatetime _pydecimal _pylong _strptime bisect calendar crypt datetime decimal fractions graphlib "
        "hashlib heapq hmac numbers random secrets statistics zoneinfo"
    ),
    "text": (
        "argparse cmd codecs curses difflib getopt getpass gettext locale optparse pprint re rlcompleter "
        "shlex sre_compile sre_constants sre_parse string stringprep textwrap this"
    ),
    "tools": (
        "_pyrepl bdb cProfile code compileall ctypes doctest logging pdb platform profile pstats pty "
        "py_compile pyclbr pydoc site sysconfig tabnanny timeit trace traceback tty unittest venv"
    ),
}
MANUAL = "manual"

# Whole modules and topics, so that no file's neighbour is trained on: about a twentieth of each domain's text in Python
# 3.11 to 3.13, and the same there.
HELD_OUT: dict[Split, str] = {
    "dev": (
        "configparser dis filecmp fileinput fnmatch fractions manual/assignment manual/import shlex smtplib "
        "tabnanny textwrap threading timeit trace weakref webbrowser"
    ),
    "test": (
        "base64 bdb contextlib copy ftplib getopt manual/comparisons manual/strings modulefinder plistlib "
        "pprint pstats queue random selectors socketserver tempfile uuid"
    ),
}

# What distributions pack apart, so that one interpreter has it and the next has not; and tables of characters.
LEFT_OUT = frozenset(
    {"distutils", "encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "tkinter", "turtle", "turtledemo"}
)
_TESTS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
_DOMAIN_OF = {module: domain for domain, modules in DOMAINS.items() for module in modules.split()}
_SPLIT_OF = {module: split for split, modules in HELD_OUT.items() for module in modules.split()}


def read() -> Iterator[tuple[Split, Document]]:
    """Every document with its split: a file of a module, or a topic of the manual, in the order of their names.

    A module is a top-level package or file; all its files lie on one side. A paragraph that several topics repeat
    stays in the longest of them alone. Raises ValueError where Python came without its sources.
    """
    root = Path(sysconfig.get_path("stdlib"))
    for name in _files(root):
        try:
            text = (root / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            warnings.warn(f"the built-in corpus lacks {name}, which cannot be read: {error}", stacklevel=2)
            continue
        module = name.split("/")[0].removesuffix(".py")
        if text.strip():
            yield _SPLIT_OF.get(module, "train"), Document(text, _DOMAIN_OF.get(module, "other"), name)
    yield from _topics(root / "pydoc_data" / "topics.py")


@cache
def _files(root: Path) -> tuple[str, ...]:
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    kept = tuple(name for name in names if _belongs(name))
    if not kept:
        raise ValueError(
            f"the built-in corpus is empty: this Python has no sources under {root}: name files of your own"
        )
    return kept


def _belongs(name: str) -> bool:
    parts = name.split("/")
    module = parts[0].removesuffix(".py")
    return module in sys.stdlib_module_names and module not in LEFT_OUT and _TESTS.isdisjoint(parts)


def _topics(path: Path) -> Iterator[tuple[Split, Document]]:
    """The manual's topics, read as a literal and never run."""
    if not path.exists():
        warnings.warn(f"the built-in corpus lacks the manual: this Python has no {path.name}", stacklevel=3)
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    table = next(node.value for node in tree.body if isinstance(node, ast.Assign))
    topics: dict[str, str] = ast.literal_eval(table)
    seen: set[str] = set()
    fresh: dict[str, str] = {}
    for topic in sorted(topics, key=lambda topic: (-len(topics[topic]), topic)):
        paragraphs = topics[topic].split("\n\n")
        fresh[topic] = "\n\n".join(paragraph for paragraph in paragraphs if paragraph.strip() not in seen)
        seen.update(paragraph.strip() for paragraph in paragraphs)
    for topic in sorted(fresh):
        if fresh[topic].strip():
            name = f"{MANUAL}/{topic}"
            yield _SPLIT_OF.get(name, "train"), Document(fresh[topic], MANUAL, name)
