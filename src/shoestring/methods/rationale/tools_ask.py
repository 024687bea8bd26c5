"""Ask a teacher for reasons and labels of your own rows, each answer kept the moment it arrives."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from shoestring.methods.rationale.tools_form import Column, Expression, FormName, Label, Option, Options, Said
from shoestring.methods.rationale.tools_out import check_file, check_own

INCOMPLETE, INTERRUPTED = 3, 130  # exit codes where rows are left without an answer

_Out = Annotated[Path, typer.Option(help="A .jsonl: each row, and what the teacher gave.")]
_Teacher = Annotated[str, typer.Option(help="The base URL of an OpenAI-compatible server, up to /v1; or local:FOLDER.")]
_Model = Annotated[str | None, typer.Option(help="By which name the server knows the model.")]
_Prompt = Annotated[
    str | None, typer.Option(help="chains, cqa, svamp, esnli, anli, or a YAML of your own; that of --form unless said.")
]
_Samples = Annotated[int, typer.Option(min=1, help="Of each row; of several the label that most gave is taken.")]
_Temperature = Annotated[float | None, typer.Option(min=0, help="The prompt's own unless said; above 0 for several.")]
_Told = Annotated[bool, typer.Option("--told", help="Tell the gold label and ask why; such reasons are marked.")]
_MaxTokens = Annotated[int | None, typer.Option(min=1, help="Of an answer; the prompt's own unless said.")]
_Seed = Annotated[int | None, typer.Option(help="Of the sampling, where the server heeds it.")]
_Concurrency = Annotated[int | None, typer.Option(min=1, help="Questions at once; 32 unless said, 8 of a local model.")]
_Requests = Annotated[float | None, typer.Option(min=1, help="At most so many.")]
_Tokens = Annotated[float | None, typer.Option(min=1, help="At most so many, of prompts and answers.")]
_BudgetTokens = Annotated[int | None, typer.Option(min=1, help="Stop before this call has paid more, all in all.")]
_BudgetMoney = Annotated[float | None, typer.Option(min=0, help="The same in money, by --price.")]
_Price = Annotated[str | None, typer.Option(metavar="IN,OUT", help="Of a million tokens of prompts, and of answers.")]
_Limit = Annotated[int | None, typer.Option(min=1, help="The first so many rows alone: to try a prompt cheaply.")]
_Answers = Annotated[Path | None, typer.Option(help="Where answers are kept, an .sqlite; beside --out unless said.")]
_Licence = Annotated[str | None, typer.Option(help="Under which terms the answers may be used: kept in each row.")]
_LengthField = Annotated[str, typer.Option(help="max_completion_tokens for servers that know no max_tokens.")]


def ask(
    data: Annotated[Path, typer.Argument(help="Rows to ask about: .jsonl or .jsonl.gz.")],
    out: _Out,
    teacher: _Teacher,
    model: _Model = None,
    prompt: _Prompt = None,
    form: FormName = None,
    column: Column = None,
    label: Label = None,
    option: Option = None,
    options: Options = None,
    expression: Expression = False,
    samples: _Samples = 1,
    temperature: _Temperature = None,
    told: _Told = False,
    max_tokens: _MaxTokens = None,
    seed: _Seed = None,
    concurrency: _Concurrency = None,
    requests_per_minute: _Requests = None,
    tokens_per_minute: _Tokens = None,
    budget_tokens: _BudgetTokens = None,
    budget_money: _BudgetMoney = None,
    price: _Price = None,
    limit: _Limit = None,
    answers: _Answers = None,
    licence: _Licence = None,
    length_field: _LengthField = "max_tokens",
) -> None:
    """Ask a teacher for a reason and a label of each row. The same command again goes on, and pays for nothing twice.

    The key is taken from OPENAI_API_KEY. Each row is written with rationale, teacher_label, agreement, told, teacher;
    where something went wrong also with problem, and with completion, the answer as it came.

    Exit code 0: every row has an answer. 3: some are left without one, by the budget or because they were refused.
    130: the same, by Ctrl-C. 2: nothing was written.
    """
    from shoestring.methods.rationale import tools_asked, tools_asked_report
    from shoestring.methods.rationale.datasets import FILTERED, KEPT

    kept = answers or out.with_suffix(".sqlite")
    check_file(out, ".jsonl", data, kept)
    check_own(out, {"teacher", *KEPT}, "asking", never=[FILTERED])
    check_file(kept, kept.suffix, data, option="--answers")
    wanted = tools_asked.Wanted(
        data=data,
        form=Said(form, column, label, option, options, expression).form_of(data),
        prompt=tools_asked.prompt_of(prompt or form, max_tokens),
        samples=samples,
        temperature=temperature,
        told=told,
        seed=seed,
        limit=limit,
    )
    pace = tools_asked.Pace(concurrency, requests_per_minute, tokens_per_minute, budget_tokens, budget_money, price)
    found = wanted.asked(tools_asked.Source(teacher, model, length_field), pace, kept)
    tools_asked_report.leave(found, out, licence)
    if found.left:
        print(f"shoestring: {found.left}", file=sys.stderr)
        raise SystemExit(INTERRUPTED if found.interrupted else INCOMPLETE)
