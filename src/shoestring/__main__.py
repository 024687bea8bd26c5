"""The door: list | run | compare | report, and each room's own tools."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import click
import typer
from typer.core import TyperGroup

from shoestring import __version__, rooms


class _Tools(TyperGroup):
    """A room's tools; they are loaded when the room is entered, not when its name is shown."""

    def __init__(self, room: rooms.Room) -> None:
        super().__init__(name=room.name, help=room.sentence, no_args_is_help=True)

    def list_commands(self, context: click.Context) -> list[str]:
        return self._loaded().list_commands(context)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        command = self._loaded().get_command(context, name)
        if command is None:
            from shoestring.config import nearest

            tools = self.list_commands(context)
            raise ValueError(
                f"the room {self.name} has no tool {name!r}{nearest(name, tools)}: expected {', '.join(tools)}"
            )
        return command

    def _loaded(self) -> click.Group:
        return typer.main.get_group(importlib.import_module(f"shoestring.methods.{self.name}.tools").app)


class _Door(TyperGroup):
    """The door's own commands, then the rooms."""

    def list_commands(self, context: click.Context) -> list[str]:
        return [*super().list_commands(context), *(room.name for room in rooms.every())]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        own = super().get_command(context, name)
        if own is not None:
            return own
        return _Tools(rooms.find(name))


app = typer.Typer(
    cls=_Door,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train language models on a budget, and keep the receipt.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"shoestring {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    """Train language models on a budget, and keep the receipt."""


@app.command("list")
def list_rooms() -> None:
    """The rooms: what each does, and its recipes."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("room", "in one sentence", "from", "recipes", "state"):
        table.add_column(column, overflow="fold")
    for room in rooms.every():
        table.add_row(room.name, room.sentence, room.paper, " ".join(room.recipes), room.state)
    Console().print(table)


@app.command()
def run(
    room: Annotated[str, typer.Argument(help="The room's name: see `shoestring list`.")],
    recipe: Annotated[str, typer.Argument(help="A recipe of the room, or a YAML file of your own.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Change its values.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write; out/ROOM-RECIPE unless said.")] = None,
) -> None:
    """Run a method beside its twin. The same command again goes on where it was stopped."""
    found = rooms.find(room)
    path = found.recipe(recipe)
    folder = out or Path("out") / f"{found.name}-{path.stem}"
    from shoestring import config
    from shoestring.evaluate import experiment

    module = importlib.import_module(f"shoestring.methods.{found.name}.recipe")
    chosen = config.load(path, module.Recipe, overrides or ())
    experiment.carry_out(chosen, folder, lambda ledger: module.run(chosen, ledger, folder, path.stem))


@app.command()
def compare(outs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, of any rooms.")]) -> None:
    """Lay the rows of several runs side by side, costs beside their ratio to the first."""
    from rich.console import Console

    from shoestring.evaluate import report

    Console(width=report.terminal_width()).print(report.compare(outs))


@app.command("report")
def show_report(out: Annotated[Path, typer.Argument(help="The folder of a finished run.")]) -> None:
    """Print a finished run's report and write its page anew."""
    from shoestring.evaluate import experiment, report

    found = report.read(out)
    report.write(found, out)
    experiment.show(found, out)


@app.command()
def score(
    model: Annotated[str, typer.Argument(help="A model's folder or Hub name.")],
    text: Annotated[str | None, typer.Option(help="Loss and bits per byte on its dev part: a folder, python …")] = None,
    questions: Annotated[
        Path | None, typer.Option(help="Multiple choice: JSON lines of context, options, answer.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="An lm-eval-harness task, or a task file; may be repeated.")
    ] = None,
    include: Annotated[Path | None, typer.Option(help="A folder of your own task files.")] = None,
) -> None:
    """Score a saved model: on text, on questions by likelihood, on any task of lm-eval-harness."""
    from shoestring.evaluate.saved import scores

    for name, value in scores(model, text, questions, task or [], include):
        typer.echo(f"{name}: {value:.6g}")


def main() -> None:
    """Run the command line: what a user did wrong is one line on standard error and exit code 2, no traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else it warns at each fork
    try:
        with _interruptible():
            # typer turns Ctrl-C into a returned 130
            if app(prog_name="shoestring", standalone_mode=False) == 130:
                raise KeyboardInterrupt
    except click.ClickException as error:
        _stop(" ".join(error.format_message().split()), 2)
    except KeyboardInterrupt:
        _stop("stopped; the same command goes on from the last checkpoint, where there is one", 130)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("SHOESTRING_TRACEBACK"):
            raise
        told = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        _stop(" ".join(told.split()), 2)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is Ctrl-C, also where a library that was being imported has made another error of it."""
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.default_int_handler(number, frame)

    before = signal.getsignal(signal.SIGINT)
    ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, press)
    try:
        yield
    except Exception:
        if pressed:
            raise KeyboardInterrupt from None
        raise
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


def _stop(message: str, code: int) -> None:
    if message:  # where only help was asked for, it has been shown
        print(f"shoestring: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
