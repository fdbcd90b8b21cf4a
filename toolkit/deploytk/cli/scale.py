"""The command that writes, and applies, a deployment of several replicas."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deploytk.base.errors import UsageError
from deploytk.cli.command import command
from deploytk.cli.defaults import source_argument
from deploytk.cli.options import RequireSignature, Trust
from deploytk.cli.session import Session, show, unused
from deploytk.cli.signing import require_signed
from deploytk.cli.source import refuse_trust_in_no_code

if TYPE_CHECKING:
    from deploytk.scale import Wishes
    from deploytk.scale.applying import Trial
    from deploytk.scale.source import Source

On = Literal["ray", "kubernetes", "compose", "inference-endpoints", "baseten", "gpustack"]


@dataclass(frozen=True, slots=True)
class Size:
    """How many replicas, of what size."""

    replicas: Annotated[
        str, typer.Option(metavar="N|MIN:MAX", help="How many; MIN:MAX lets them come and go with the load.")
    ] = "1"
    gpu: Annotated[
        str | None,
        typer.Option(metavar="NAME|SIZE", help="The GPUs that are there: A100-80G, 24G. 3 if it is too large."),
    ] = None
    tp: Annotated[int | None, typer.Option(min=1, help="GPUs per replica: what the bundle is planned for.")] = None
    gpus_per_node: Annotated[int, typer.Option(min=1, max=64, help="GPUs of a node.")] = 8
    report: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A smoke test's report: how long a start really takes."),
    ] = None

    def wishes(self) -> Wishes:
        from deploytk.scale import Replicas, Wishes
        from deploytk.scale.prepare import measured_load_s

        return Wishes(
            replicas=Replicas.parsed(self.replicas),
            gpu=self.gpu,
            tensor_parallel=self.tp,
            gpus_per_node=self.gpus_per_node,
            load_s=measured_load_s(self.report) if self.report else None,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where they go, and what is there."""

    image: Annotated[
        str | None, typer.Option(metavar="HOST/NAME:TAG", help="The image of a bundle, in a registry.")
    ] = None
    repo: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="inference-endpoints: the repository of the bundle.")
    ] = None
    nodes: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="ray: addresses of the nodes, the head first, for the load balancer."),
    ] = None
    address: Annotated[
        str, typer.Option(metavar="URL", help="ray: the dashboard, for --apply; RAY_AUTH_TOKEN_PATH has its token.")
    ] = "http://127.0.0.1:8265"
    bundle_place: Annotated[
        Path | None, typer.Option(metavar="DIR", help="ray: where every node has the bundle; where it is here.")
    ] = None
    namespace: Annotated[str, typer.Option(help="kubernetes: the namespace.")] = "default"
    autoscaler: Annotated[
        Literal["hpa", "keda"], typer.Option(help="kubernetes: what adds replicas; hpa needs the Prometheus adapter.")
    ] = "hpa"
    prometheus: Annotated[str, typer.Option(metavar="URL", help="kubernetes: the Prometheus that KEDA asks.")] = (
        "http://prometheus-operated.monitoring.svc:9090"
    )
    monitoring: Annotated[
        bool, typer.Option("--monitoring", help="kubernetes: a ServiceMonitor for the Prometheus operator.")
    ] = False
    claim: Annotated[
        str | None, typer.Option(metavar="NAME", help="kubernetes: the PersistentVolumeClaim that holds the bundle.")
    ] = None
    volume: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="kubernetes: the image that holds it, mounted as a volume.")
    ] = None
    runtime_class: Annotated[
        str | None, typer.Option(metavar="NAME", help="kubernetes: nvidia, where it is not the default runtime.")
    ] = None
    pull_secret: Annotated[
        str | None, typer.Option(metavar="NAME", help="kubernetes: the Secret with which images are pulled.")
    ] = None
    without_keys: Annotated[
        bool, typer.Option("--without-keys", help="kubernetes, compose: clients need no API key.")
    ] = False

    def add_to(self, wishes: Wishes, source: Source) -> Wishes:
        from deploytk.scale import kubernetes_name, node_list
        from deploytk.scale.wishes import image_by_digest, repository_name, web_address

        here = str(source.place.resolve()) if source.place and source.image is None else "/bundle"
        return dataclasses.replace(
            wishes,
            bundle_place=str(self.bundle_place) if self.bundle_place else here,
            nodes=node_list(self.nodes),
            namespace=kubernetes_name(self.namespace, "--namespace"),
            keys=not self.without_keys,
            autoscaler=self.autoscaler,
            prometheus=web_address(self.prometheus, "--prometheus"),
            has_monitoring=self.monitoring,
            claim=self.claim and kubernetes_name(self.claim, "--claim"),
            volume=self.volume and image_by_digest(self.volume),
            runtime_class=self.runtime_class and kubernetes_name(self.runtime_class, "--runtime-class"),
            pull_secret=self.pull_secret and kubernetes_name(self.pull_secret, "--pull-secret"),
            repository=self.repo and repository_name(self.repo),
        )


@dataclass(frozen=True, slots=True)
class Rollout:
    """What becomes of the files."""

    apply: Annotated[
        bool,
        typer.Option("--apply", help="ray, kubernetes: deploy it, wait until it runs, take it back if it does not."),
    ] = False
    canary: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT", help="With --apply: try it on 10% of the requests, judge it, promote it or take it back."
        ),
    ] = None
    old_url: Annotated[
        str | None, typer.Option(metavar="URL", help="With --canary: where the old revision is measured.")
    ] = None
    new_url: Annotated[
        str | None, typer.Option(metavar="URL", help="With --canary: where the new revision is measured.")
    ] = None
    judge_within: Annotated[
        str, typer.Option(metavar="DURATION", help="With --canary: how long it may be measured; 20 rounds at most.")
    ] = "30m"

    def tried(self, source: Source) -> Trial | None:
        """How the new revision is tried; raises UsageError for --canary where nothing is deployed."""
        from deploytk.base.durations import seconds_of
        from deploytk.scale import share_of
        from deploytk.scale.applying import Trial
        from deploytk.scale.wishes import web_address

        if self.canary is None:
            unused("old_url", "new_url", "judge_within", because="there is no --canary to be measured")
            return None
        if not self.apply:
            raise UsageError("--canary does nothing without --apply", hint="add --apply: both revisions have to run")
        within_s = seconds_of(self.judge_within)
        if not within_s:
            raise UsageError("--judge-within 0 leaves no time to measure", hint="write 90s, 30m or 1h")
        old = self.old_url and web_address(self.old_url, "--old-url")
        new = self.new_url and web_address(self.new_url, "--new-url")
        return Trial(share_of(self.canary), old, new, source.manifest.golden, within_s)


@command("deploytk scale ./bundle --on kubernetes --image ghcr.io/me/chat:1 --replicas 1:8 -o ./deployment")
def scale(
    source: Annotated[str, source_argument("BUNDLE|IMAGE", "A bundle, or an image of one: HOST/NAME:TAG, oci:DIR.")],
    on: Annotated[On, typer.Option("--on", help="Where they are to run.")],
    size: Size,
    place: Place,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the files go.")],
    trust: Trust,
    rollout: Rollout,
    require_signature: RequireSignature = None,
) -> None:
    """Write the deployment of several replicas: on Ray, Kubernetes, Compose, or for a platform that runs images."""
    from deploytk.scale import PLATFORMS, Scaled, applied_to, prepared, rolled_out, write_files
    from deploytk.scale.source import read_source

    platform = PLATFORMS[on]
    special = {name for one in PLATFORMS.values() for name in one.takes} - set(platform.takes)
    unused(*sorted(special), because=f"{platform.title} has no such thing")
    wishes = size.wishes()
    found = read_source(source, place.image, Session.progress)
    _require_trust(found, trust)
    _require_signature(found, require_signature)
    made = prepared(found, on, place.add_to(wishes, found))
    if rollout.apply and not platform.can_apply:
        raise UsageError(f"--apply does nothing for {platform.title}", hint="leave it out, and bring it the files")
    tried = rollout.tried(found)
    files = write_files(output, made.files) if made.files else ()
    applied, canary = "", None
    if tried and files:
        canary = rolled_out(on, made, place.address, tried, Session.progress)
        applied = "the new revision serves" if canary.is_good else "the old revision serves on"
    elif rollout.apply and files:
        applied = applied_to(on, made, place.address, Session.progress)
    value = Scaled(
        platform=on,
        name=made.replica.name,
        replicas=made.wishes.replicas,
        path=output,
        files=files,
        replica=made.replica,
        misfits=made.misfits,
        warnings=made.warnings,
        notes=made.notes,
        applied=applied,
        canary=canary,
    )
    show(value, "show_scaled")
    if made.misfits:
        raise typer.Exit(3)
    if canary:
        raise typer.Exit(canary.exit_code)


def _require_trust(source: Source, trust: Trust) -> None:
    """Of a bundle the app must be ours and its model run no code, unless that is trusted; an image is as it is."""
    if source.place is None:
        unused(Trust, because="an image has an app and a command of its own")
        return
    from deploytk.bundle import read_bundle, require_own_app, require_trusted_code

    bundle = read_bundle(source.place)
    if not trust.trust_bundle:
        require_own_app(bundle, template=None)
    refuse_trust_in_no_code(source.place, bundle.manifest.plan.engine)
    require_trusted_code(bundle, is_trusted=trust.trust_remote_code)


def _require_signature(source: Source, key: Path | None) -> None:
    """Of a bundle every file must be signed, of an image what its registry has under the digest that is deployed."""
    if key is None:
        return
    if source.place is not None:
        require_signed(source.place, key)
    if source.image is not None:
        from deploytk.signing import verifier_for, verify_image

        found = verify_image(source.image, verifier_for(key))
        Session.progress.note(f"{source.image} is what {found.signed_by} has signed")
    elif source.place is None:
        hint = "push it, and name it as HOST/NAME:TAG"
        raise UsageError("the signature of an image is looked for in its registry", hint=hint)
