"""Writes the pages of docs/reference that other files know: python tools/write_reference.py, or `make reference`.

    commands.md    every command and option, from the command line itself
    gpus.md        hardware/gpus.yaml
    overhead.md    lmdeploy/overhead.yaml; what its keys mean stands in the head of that file
    api.md         what the API of which engine has: app/features.py and lmdeploy/api.py

What others serve is docs/models.md, written by tools/read_lmdeploy. A test holds that these pages are current.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from deploytk import lmdeploy
from deploytk.app.features import CHAT, CPU, FEATURES, TEXT
from deploytk.artifact import ToolFormat
from deploytk.base.yaml import load_yaml
from deploytk.cli import publish as publish_command
from deploytk.cli.command import Everywhere, metavar, spread
from deploytk.cli.lazily import NAMES, load
from deploytk.publish.target import loadable_targets

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "docs" / "reference"
PACKAGE = ROOT / "toolkit" / "deploytk"


def pages() -> dict[str, str]:
    """Every page that is written, by the name of its file."""
    return {
        "commands.md": commands_page(),
        "gpus.md": gpus_page(),
        "overhead.md": overhead_page(),
        "api.md": api_page(),
    }


def commands_page() -> str:
    everywhere = list(_parameters(spread(_nothing)))
    return "\n".join(
        (
            "# Commands\n",
            "Written by `make reference` from the command line itself; each command says the same with `--help`.\n",
            "## Every command\n",
            *_options_table(everywhere),
            "",
            "`--help` explains a command. Before a command stand `-q` and `-v` too, and `--version`.\n",
            *[line for name, command in _commands() for line in _command(name, command)],
        )
    )


def gpus_page() -> str:
    path = PACKAGE / "hardware" / "gpus.yaml"
    rows = [
        (
            name,
            f"{row['total']:,}",
            row["capability"],
            f"{row['bandwidth']:,}" if "bandwidth" in row else "",
            ", ".join(row.get("aliases", ())),
        )
        for name, row in load_yaml(path).items()
    ]
    head = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return "\n".join(
        (
            "# GPUs\n",
            "Written by `make reference` from `hardware/gpus.yaml`. `--gpu` takes these names; spaces, dashes and case",
            "do not matter. It takes a size as well: `24G`, `24576MiB`.\n",
            *(line.lstrip("# ") for line in head),
            "",
            *_table(("name", "MiB", "compute capability", "GB/s", "also called"), rows),
            "",
        )
    )


def api_page() -> str:
    rows = [
        (
            feature.words,
            " ".join(f"`{name}`" for name in feature.fields) or "`prompt`",
            "chats" if feature.paths == (CHAT,) else "completions" if feature.paths == (TEXT,) else "both",
            "yes" if feature.name in CPU else "no",
            *(_since(feature.name, engine) for engine in ("turbomind", "pytorch")),
        )
        for feature in FEATURES
    ]
    rows.append(("what the model thinks, apart from its answer", "`reasoning_content` of the answer", "chats", "no",
                 *[f"from {_with_parser()[0]} with `--reasoning-parser`"] * 2))  # fmt: skip
    return "\n".join(
        (
            "# What a request may ask for\n",
            "Written by `make reference` from `app/features.py` and `lmdeploy/api.py`, which was read from LMDeploy's",
            "sources. Text, `stream`, `stop`, `temperature`, `top_p`, `top_k`, `repetition_penalty`, `max_tokens` and",
            "`max_completion_tokens` work everywhere, `stream_options` from LMDeploy 0.6.0 on. What an engine does not",
            "have is refused with 400 and the name of the field in `param`: LMDeploy by itself takes many of them and",
            "forgets them.\n",
            *_table(("feature", "fields", "of", "CPU engine", "TurboMind", "PyTorch engine"), rows),
            "\n## Tools\n",
            "LMDeploy reads the calls of tools out of the text by a parser, `lmdeploy serve api_server",
            "--tool-call-parser NAME`. `plan` names the one",
            "that the model's chat template asks for; a model whose template has no tools, or writes them as no parser",
            "of its LMDeploy reads them, is refused them. gpt-oss needs no flag.\n",
            "A call that must be made is `tool_choice` `required`, a tool by its name, or `allowed_tools` of mode",
            "`required`. LMDeploy forces the first alone, by xgrammar (0.2.0 or later, which it requires); the app",
            "makes that of the others, with the tools that they name.\n",
            *_table(("how the template writes calls", "parser", "LMDeploy"), list(_parsers())),
            "",
            "## Thoughts\n",
            "With `--reasoning-parser NAME`, of every command that plans, the server sends what a model writes up to",
            "`</think>` as `reasoning_content`, and the rest as `content`. Without it both are one text. The chat page",
            "folds thoughts in either form. LMDeploy starts with no parser whose tags the tokenizer has not.\n",
            *_table(("parser", "LMDeploy"), list(_reasoning_parsers())),
            "",
        )
    )


def _since(feature: str, engine: lmdeploy.LmdeployEngine) -> str:
    if feature in ("tools", "images"):
        return "where the template has a parser" if feature == "tools" else "models of images"
    if feature == "required_tools":
        first = next(one for one in lmdeploy.VERSIONS if lmdeploy.forces_tool_calls(one, "qwen3"))
        return f"from {first}, but for `llama3`"
    if feature == "lmdeploy_fields":
        return "passed on"
    having = [version for version in lmdeploy.VERSIONS if feature in lmdeploy.api_features(version, engine)]
    if not having:
        return "no"
    if having[-1] != lmdeploy.NEWEST:
        return f"{having[0]} to {having[-1]}"
    return "yes" if having[0] == lmdeploy.VERSIONS[0] else f"from {having[0]}"


def _parsers() -> Iterator[tuple[str, str, str]]:
    for written in get_args(ToolFormat):
        names = [(one, lmdeploy.tool_call_parser(one, written, "")) for one in lmdeploy.VERSIONS]
        for parser, group in itertools.groupby(names, key=lambda pair: pair[1]):
            versions = [version for version, _ in group]
            if parser:
                yield written, f"`{parser}`", f"{versions[0]} to {versions[-1]}"


def _with_parser() -> list[str]:
    return [version for version in lmdeploy.VERSIONS if lmdeploy.reasoning_parsers(version)]


def _reasoning_parsers() -> Iterator[tuple[str, str]]:
    for name in lmdeploy.REASONING_PARSERS:
        having = [version for version in lmdeploy.VERSIONS if name in lmdeploy.reasoning_parsers(version)]
        yield f"`{name}`", f"{having[0]} to {having[-1]}"


def _bandwidth(row: dict[str, Any]) -> str:
    return f"{row['bandwidth']:,}" if "bandwidth" in row else ""


def overhead_page() -> str:
    path = PACKAGE / "lmdeploy" / "overhead.yaml"
    meanings = _meanings(path.read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = load_yaml(path)["rows"]
    columns = [key for key in meanings if any(key in row for row in rows)]
    cells = [
        (f"{row['first']} to {row['last']}", str(row["bits"]), *(str(row.get(key, "")) for key in columns))
        for row in rows
    ]
    sources = [(f"{row['first']} to {row['last']}, {row['bits']} bits", row["source"]) for row in rows]
    return "\n".join(
        (
            "# What a server takes besides weights and KV pool\n",
            "Written by `make reference` from `lmdeploy/overhead.yaml`. [VRAM](../explanation/vram.md) explains it.\n",
            "## Terms\n",
            *_table(("term", "is"), meanings.items()),
            "\n## Rows\n",
            *_table(("LMDeploy", "bits of the weights", *columns), cells),
            "\n## Where each row was measured\n",
            *_table(("row", "servers"), sources),
            "",
        )
    )


def _meanings(text: str) -> dict[str, str]:
    """The keys that the head of the file explains: a word, some spaces, and lines that go on below it."""
    found: dict[str, str] = {}
    for line in text.partition("\nrows:")[0].splitlines():
        named = re.match(r"#   (\w+) {2,}(.*)", line)
        if named:
            found[named[1]] = named[2]
        elif found and line.startswith("#                "):
            found[[*found][-1]] += " " + line.lstrip("# ")
    return found


def _commands() -> Iterator[tuple[str, Any]]:
    for name in NAMES:
        found = load(name)
        if isinstance(found, typer.Typer):
            yield from ((f"{name} {one.name}", one) for one in found.registered_commands)
        else:
            alone = typer.Typer()
            found.add_to(alone)
            yield name, alone.registered_commands[0]


def _command(name: str, command: Any) -> Iterator[str]:
    own = [one for one in _parameters(command.callback) if one[0].name not in Everywhere.__slots__]
    yield f"## deploytk {name}\n"
    yield inspect.getdoc(command.callback) or ""
    yield f"\n```\n{str(command.epilog).partition('Example:')[2].strip()}\n```\n"
    arguments = [one for one in own if _is_argument(one[2])]
    options = [one for one in own if not _is_argument(one[2])]
    if arguments:
        yield from _table(("argument", "is"), [(f"`{_cell(told.metavar)}`", told.help) for _, _, told in arguments])
        yield ""
    if options:
        yield from _options_table(options)
        yield ""
    if name == "publish":
        yield from _targets()


def _targets() -> Iterator[str]:
    """What each target takes beside what all of them do."""
    function = publish_command.publish.function
    everywhere = {one.name for one, _, _ in _parameters(spread(function))}
    for target in loadable_targets():
        callback = spread(function, own=target.about.options)
        own = [one for one in _parameters(callback) if one[0].name not in everywhere]
        if own and target.__module__.startswith("deploytk."):
            yield f"`--target {target.about.name}` takes as well:\n"
            yield from _options_table(own)
            yield ""


def _nothing() -> None:
    """A command without options of its own."""


def _parameters(function: Any) -> Iterator[tuple[inspect.Parameter, Any, Any]]:
    """Each parameter, its type, and what typer is told about it."""
    for one in inspect.signature(function, eval_str=True).parameters.values():
        kind, *notes = get_args(one.annotation) if get_origin(one.annotation) is Annotated else [one.annotation]
        if kind is typer.Context:
            continue
        told = next((note for note in notes if hasattr(note, "param_decls")), typer.Option())
        yield one, kind, told


def _is_argument(told: Any) -> bool:
    return not isinstance(told, type(typer.Option()))


def _options_table(options: Iterable[tuple[inspect.Parameter, Any, Any]]) -> Iterator[str]:
    rows = [(_written(one, told), _value(kind, told), _default(one), told.help) for one, kind, told in options]
    yield from _table(("option", "value", "default", "does"), rows)


def _written(one: inspect.Parameter, told: Any) -> str:
    given = [name for name in (told.default, *(told.param_decls or ())) if isinstance(name, str) and name[:1] == "-"]
    return ", ".join(f"`{name}`" for name in given or [f"--{one.name.replace('_', '-')}"])


def _value(kind: Any, told: Any) -> str:
    written = metavar(kind, told)
    is_several = list in (get_origin(one) for one in (kind, *get_args(kind)))
    return f"`{_cell(written)}`" + (", again and again" if is_several else "") if written else ""


def _default(one: inspect.Parameter) -> str:
    if one.default is inspect.Parameter.empty:
        return "has to be given"
    return "" if one.default in (None, False) or one.default == [] else f"`{one.default}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(str(cell) if str(cell).startswith('`') else _cell(str(cell)) for cell in row)} |"


def _cell(text: str) -> str:
    """As a cell of a table: what parts cells there is escaped."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    for name, text in pages().items():
        (PLACE / name).write_text(text, encoding="utf-8")
