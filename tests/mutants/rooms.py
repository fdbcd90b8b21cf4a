"""The rooms that mutants are planted in, and the tests that are to find them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path("toolkit/deploytk")

# They measure time, so that on a busy machine they fail for no reason, and would seem to find what they do not see.
TIMED = (
    "test_smoke.py::test_times_are_what_really_happened",
    "test_smoke.py::test_an_empty_role_event_is_not_the_first_token",
    "test_smoke_report.py::test_the_client_can_check_itself",
    "test_app_gateway.py::test_tokens_are_not_held_back",
)


@dataclass(frozen=True, slots=True)
class Room:
    places: tuple[str, ...]  # below the package: files and directories
    tests: tuple[str, ...]  # patterns below tests/, of those that take seconds, not minutes
    services: tuple[str, ...] = ()  # likewise: their tests of services are asked about what the others do not find

    def modules(self, root: Path) -> Iterator[Path]:
        """Its files, relative to `root`."""
        for place in self.places:
            path = root / PACKAGE / place
            files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
            yield from (file.relative_to(root) for file in files if file.name != "__init__.py")

    @property
    def markers(self) -> tuple[str, ...]:
        """Of its tests, in the order in which they are asked; "" is for those that need nothing."""
        return ("", "services") if self.services else ("",)


def files_of(patterns: tuple[str, ...], root: Path) -> list[str]:
    """The files of tests that they mean, relative to `root`."""
    return sorted({str(path.relative_to(root)) for pattern in patterns for path in (root / "tests").glob(pattern)})


ROOMS: Mapping[str, Room] = {
    "plan": Room(
        ("plan", "lmdeploy/flags.py", "lmdeploy/features.py"),
        ("test_plan*.py", "test_lmdeploy.py", "test_advisories.py", "test_public_models.py", "test_gpu.py",
         "test_vram_cells.py", "test_smoke_gpu.py", "test_remote_code.py"),
    ),
    "weights": Room(
        ("weights",),
        ("test_weights.py", "test_packed_weights.py", "test_modernize.py", "test_workspace_settings.py"),
    ),
    "publish": Room(
        ("publish",),
        ("test_local_target.py", "test_publish_*.py", "test_secrets.py", "test_huggingface*.py", "test_modelscope*.py",
         "test_openxlab*.py", "test_lying_*.py", "test_foreign_files.py",
         "test_edited_cards.py", "test_hub_pressure.py", "test_modelpack.py"),
        ("test_modelscope.py", "test_openxlab_s*.py", "test_publish_*.py", "test_modelpack.py"),
    ),
    "registry": Room(
        ("image/registry",),
        ("test_registry*.py", "test_lying_registry.py", "test_foreign_tags.py", "test_image_oci.py"),
        ("test_registry*.py", "test_publish_image.py"),
    ),
    "smoke": Room(
        ("smoke",),
        ("test_smoke.py", "test_smoke_[cfgmr]*.py", "test_smoke_kept.py", "test_golden_pages.py", "test_bench_co*.py",
         "test_scale_judging.py"),
    ),
    "app": Room(
        ("app",), ("test_app_*.py", "test_hostile_clients.py"), ("test_app_openapi.py", "test_app_visitors.py")
    ),
}  # fmt: skip
