"""The command that makes 4 bits of a model, and says what they cost; `publish` makes them with the same options."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deploytk.base.errors import UsageError
from deploytk.cli.command import command
from deploytk.cli.defaults import source_argument
from deploytk.cli.options import AllowPickle, Golden, Packaging, TrustRemoteCode
from deploytk.cli.session import Session, show, unused

if TYPE_CHECKING:
    from deploytk.quantize import QuantizeOptions

MethodChoice = Literal["awq", "autoround"]


@dataclass(frozen=True, slots=True)
class Calibrating:
    """What the quantizer looks at, and where."""

    calib: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|DIR|none",
            help="Texts to calibrate with: text, or JSONL of text or messages; the set of deploytk by default.",
        ),
    ] = None
    samples: Annotated[int, typer.Option(min=1, help="Windows of text, at most.")] = 128
    seqlen: Annotated[int, typer.Option(min=16, help="Tokens of a window.")] = 2048
    search_scale: Annotated[
        bool,
        typer.Option(
            "--search-scale", help="awq: search the smoothing of every layer; much slower, not always better."
        ),
    ] = False
    iters: Annotated[int, typer.Option(min=0, help="autoround: steps for every layer.")] = 200
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where layers are calibrated; auto: a GPU where one is.")
    ] = "auto"
    python: Annotated[
        Path | None,
        typer.Option(metavar="PYTHON", exists=True, dir_okay=False, help="Of an environment that has the quantizer."),
    ] = None

    def options(self, method: MethodChoice) -> QuantizeOptions:
        from deploytk.quantize import NONE, QuantizeOptions

        if method == "autoround":
            unused("search_scale", because="it is an option of --method awq")
            if self.calib == NONE:
                raise UsageError("autoround learns from texts", hint="leave --calib none out, or take --method awq")
        else:
            unused("iters", because="it is an option of --method autoround")
        if self.calib == NONE:
            unused("samples", "seqlen", "search_scale", because="--calib none looks at no texts")
        return QuantizeOptions(
            method=method,
            calibration=self.calib,
            samples=self.samples,
            seqlen=self.seqlen,
            search_scale=self.search_scale,
            iterations=self.iters,
            device=self.device,
            python=self.python.absolute() if self.python else None,
        )


@dataclass(frozen=True, slots=True)
class Measuring:
    """How it is measured what 4 bits cost, and what they may."""

    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="Leave out what it cost: perplexity, divergence, answers.")
    ] = False
    measure_on: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, help="Text for perplexity, instead of that of deploytk."),
    ] = None
    golden: Golden = None
    max_ppl_increase: Annotated[
        float | None, typer.Option(metavar="PERCENT", help="Most that perplexity may rise; more ends with 3.")
    ] = None

    def added_to(self, options: QuantizeOptions) -> QuantizeOptions:
        from deploytk.bundle import read_golden

        if self.no_measure:
            unused("golden", "measure_on", "max_ppl_increase", because="--no-measure measures nothing")
        return replace(
            options,
            measures=not self.no_measure,
            measured_text=str(self.measure_on) if self.measure_on else None,
            golden=read_golden(self.golden) if self.golden else (),
            max_perplexity_increase=self.max_ppl_increase,
        )


@command("deploytk quantize ./internlm2-chat-1_8b -o ./internlm2-chat-1_8b-awq")
def quantize(
    model: Annotated[Path, source_argument("MODEL", "A model in 16 bits: HF layout or workspace.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The directory to write.")],
    calibrating: Calibrating,
    measuring: Measuring,
    method: Annotated[
        MethodChoice, typer.Option(help="awq: LMDeploy's own, minutes; autoround: learns the rounding, hours.")
    ] = "awq",
    session_len: Annotated[
        int | None,
        typer.Option("--session-len", min=1, help="The longest session to make it for; as long as before by default."),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    allow_pickle: AllowPickle = False,
) -> None:
    """Turn a model in 16 bits into one in 4 (W4A16) that TurboMind serves, and measure what that costs."""
    from deploytk.artifact import read_artifact
    from deploytk.quantize import quantize as write_quantized

    options = measuring.added_to(calibrating.options(method))
    options = replace(options, session_len=session_len, trusts_code=trust_remote_code)
    artifact = read_artifact(model, allows_pickles=allow_pickle)
    done = write_quantized(artifact, output, options, Session.progress)
    show(done, "show_quantized")
    if done.is_within_budget is False:
        raise typer.Exit(3)


def quantized(
    source: Path, method: MethodChoice, calib: str | None, max_ppl_increase: float | None, packaging: Packaging
) -> Path:
    """A directory with 4 bits of the model `source`, made now or by an earlier run with the same wish.

    Raises typer.Exit(3) when it costs more than `max_ppl_increase`.
    """
    from deploytk.artifact import read_artifact
    from deploytk.bundle import is_bundle, read_golden
    from deploytk.quantize import quantize_once

    if is_bundle(source):
        unused("quantize", because=f"{source} is a bundle already, taken as it is", hint="name the model itself")
    options = replace(
        Calibrating(calib=calib).options(method),
        golden=read_golden(packaging.golden) if packaging.golden else (),
        trusts_code=packaging.trust_remote_code,
        max_perplexity_increase=max_ppl_increase,
    )
    made = quantize_once(read_artifact(source, allows_pickles=packaging.allow_pickle), options, Session.progress)
    if made.is_within_budget is False:
        Session.progress.note(f"{made.path} costs more than {max_ppl_increase} % of perplexity: nothing is published")
        raise typer.Exit(3)
    return made.path
