"""The tools: learn a graph of your own skills, look at one, weigh by it, and sort a heap into skills."""

from __future__ import annotations

import typer

from shoestring.methods.mixing.tools_graph import graph
from shoestring.methods.mixing.tools_show import show
from shoestring.methods.mixing.tools_sort import sort
from shoestring.methods.mixing.tools_weights import weights

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in (graph, show, weights, sort):
    app.command()(command)
