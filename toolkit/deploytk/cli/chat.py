"""The command that talks to a model."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from deploytk.base.credentials import can_ask
from deploytk.base.durations import seconds_of
from deploytk.cli.command import command
from deploytk.cli.defaults import source_argument
from deploytk.cli.options import Contents, Engine, Planning, Template, Trust, key_in
from deploytk.cli.serve import refuse_template_of
from deploytk.cli.session import Session, show, unused
from deploytk.cli.signing import require_signed_source
from deploytk.cli.source import planning_for, source_kind, trusts, trusts_code

if TYPE_CHECKING:
    from deploytk.chat import Sampling, Screen

_HERE = "http://127.0.0.1:7860"  # where `serve` listens


@dataclass(frozen=True, slots=True)
class Talk:
    """How the model is talked to."""

    system: Annotated[str, typer.Option(metavar="TEXT", help="What the model is told first.")] = ""
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens per answer, at most.")] = None
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="0 gives the likeliest answer; the server's own by default.")
    ] = None
    seed: Annotated[int | None, typer.Option(min=0, help="The same answers again.")] = None
    wait: Annotated[str, typer.Option(metavar="DURATION", help="How long a server at a URL may take to be ready.")] = (
        "0s"
    )
    api_key_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Variable with the key that a server at a URL wants; DEPLOYTK_API_KEY by default."
        ),
    ] = None

    def sampling(self) -> Sampling:
        from deploytk.chat import Sampling

        return Sampling(self.max_tokens, self.temperature, self.seed)


@command("deploytk chat ./internlm-chat-7b-awq --engine cpu")
def chat(
    talk: Talk,
    planning: Planning,
    trust: Trust,
    contents: Contents,
    source: Annotated[
        str, source_argument("URL|MODEL|BUNDLE|IMAGE", "What to talk to; the app that `serve` runs here by default.")
    ] = _HERE,
    template: Template = None,
    engine: Engine = "auto",
) -> None:
    """Talk to a model in the terminal: to an app that runs, or one that is started for it; /help lists the commands.

    Without a terminal every line of stdin is a question, and an error ends it.
    """
    from deploytk.chat import Chat, line_reader
    from deploytk.serve import ServeOptions, open_endpoint

    kind = source_kind(source)
    refuse_template_of(source, template)
    if kind == "url":
        unused("require_signature", because=f"{source} is a running server")
    else:
        unused("wait", "api_key_env", because=f"{source} is started here")
        require_signed_source(source, contents.require_signature)
    planning = planning_for(source, planning, engine)
    options = ServeOptions(
        engine=engine,
        request=planning.request_here(trusts_code=trusts_code(source, trust.trust_remote_code, engine)),
        template=template,
        trusts_bundle=trusts(source, trust.trust_bundle),
        allows_pickles=contents.allow_pickle,
        api_key=key_in(talk.api_key_env) if kind == "url" else None,
        attach_within_s=seconds_of(talk.wait),
    )
    is_interactive = can_ask()
    with open_endpoint(source, options, Session.progress) as endpoint:
        if is_interactive:
            typer.echo(f"{endpoint.model} at {endpoint.url}; /help lists the commands, Ctrl-D ends", err=True)
        talking = Chat(endpoint, _screen(), talk.sampling(), talk.system, is_interactive=is_interactive)
        said = talking.run(line_reader())
        if Session.as_json:
            show(said, "show_json")


def _screen() -> Screen:
    """Answers are on stdout, where --json has its value alone: then they are shown to a person on stderr."""
    from deploytk.chat import Screen

    is_dim = sys.stderr.isatty()

    def say(text: str) -> None:
        if not Session.as_json or can_ask():
            typer.echo(text, nl=False, err=Session.as_json)
            (sys.stderr if Session.as_json else sys.stdout).flush()

    def think(text: str) -> None:
        if is_dim and can_ask():
            typer.secho(text, nl=False, err=True, dim=True)

    return Screen(say, think, note=lambda text: typer.echo(text, err=True))
