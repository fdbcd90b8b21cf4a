"""Shows what was or would be published, and whether its app can run there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from deploytk.base.terminal import console
from deploytk.display.rows import mib, print_whole, show_notes, show_rows

if TYPE_CHECKING:
    from deploytk.preflight import Preflight
    from deploytk.publish.plan import Change, ReleasePlan
    from deploytk.publish.record import Release

_VISIBILITY = {True: "private", False: "public", None: "as the target is"}


def show_release_plan(plan: ReleasePlan) -> None:
    _show_changes(plan.changes)
    show_rows(
        [
            ("target", f"{plan.target}, {plan.repo}"),
            ("visibility", _VISIBILITY[plan.is_private]),
            ("to send", mib(plan.upload_bytes)),
            ("credentials", plan.permissions),
        ]
    )
    if plan.app:
        console().print()
        _show_changes(plan.app.changes)
        show_rows(
            [
                ("app", plan.app.place),
                ("runs with", f"{plan.app.sdk}, {plan.app.hardware or 'no hardware is ordered'}"),
                ("visibility", _VISIBILITY[plan.app.is_private]),
                ("secrets", ", ".join(plan.app.secrets) or "none"),
                ("to send", mib(plan.app.upload_bytes)),
            ]
        )
        show_notes([plan.app.doubt] if plan.app.doubt else [])


def _show_changes(changes: Sequence[Change]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("status")
    table.add_column("file")
    table.add_column("to send", justify="right")
    for change in changes:
        status = "edited" if change.is_edited else change.status
        table.add_row(status, Text(change.path), mib(change.bytes) if change.bytes else "")
    print_whole(table, len("changed  " + "  1,000,000.0 MiB"), (change.path for change in changes))
    if any(change.is_edited for change in changes):
        console().print("edited: somebody changed it there since deploytk wrote it; publishing writes over that")


def show_release(release: Release) -> None:
    show_rows(
        [
            ("target", f"{release.target}, {release.repo}"),
            ("revision", release.revision),
            ("url", release.url),
            ("sent", f"{release.uploaded_files} files, {mib(release.uploaded_bytes)}"),
            ("unchanged", f"{release.unchanged_files} files"),
            *_others(release.kept_files, release.app_kept_files),
            *([("deleted", ", ".join(release.deleted_files))] if release.deleted_files else []),
            *_edited(release.replaced_files, release.app_replaced_files),
            ("verified", f"by {release.verified_by}" if release.verified else "no"),
        ]
    )
    for number, step in enumerate(release.steps_left, 1):
        console().print(Text(f"{number}. {step}"))


def _others(kept: Sequence[str], app_kept: Sequence[str]) -> list[tuple[str, str]]:
    """What others wrote there and stays."""
    rows = [("kept", f"of others: {', '.join(kept)}; --mirror deletes them")] if kept else []
    if app_kept:
        rows.append(("kept", f"of others, in the app's repository: {', '.join(app_kept)}"))
    return rows


def _edited(replaced: Sequence[str], app_replaced: Sequence[str]) -> list[tuple[str, str]]:
    """What somebody had changed there since the last release, and is gone from the newest revision."""
    rows = [("replaced", f"edited there before: {', '.join(replaced)}")] if replaced else []
    if app_replaced:
        rows.append(("replaced", f"edited there before, in the app's repository: {', '.join(app_replaced)}"))
    return rows


_STATUS = {"pass": "passed", "fail": "not passed", "inconclusive": "not tried to the end"}


def show_preflight(found: Preflight) -> None:
    for finding in found.findings:
        style = "bold red" if finding.level == "error" else "yellow"
        level = "cannot be told" if finding.level == "unknown" else finding.level
        console().print(Text(f"{level}: {finding.message}", style=style))
        console().print(Text(f"  {finding.hint}", style="dim"))
    answer = "none" if found.first_answer_s is None else f"after {found.first_answer_s:.1f} s"
    asked = "" if found.resolved_by_pip else "; --network lets pip resolve the requirements"
    show_rows(
        [
            ("first answer", answer),
            ("listens on", ", ".join(found.listens_on) or "nothing"),
            ("ran", "; ".join(found.ran) or "no slow program"),
            ("Python", f"{found.python_here} here, {found.python_there} on {found.platform}{asked}"),
            ("pre-flight", _STATUS[found.status]),
        ]
    )
