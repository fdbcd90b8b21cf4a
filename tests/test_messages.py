"""Every sentence that deploytk can say keeps to the rules, and to what the command line takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from messages import PACKAGE, Message, messages

from deploytk.cli.lazily import commands
from deploytk.publish.options import declared
from deploytk.publish.target import loadable_targets

# Programs of others that hints name, with options of their own.
OTHERS = (
    *("pip", "docker", "git", "openssl", "apt-get", "lmdeploy", "LMDeploy", "CUDA", "hf auth", "cosign", "kubectl"),
    *("plans pass", "RUN --mount", "ray start", "modelscope login"),
)
# Addresses, and names of letters, digits and dashes: nothing in them is a shell's.
PLAIN = ("url", "extra", "address", "page", "tag", "space", "name")
PYTHONIC = re.compile(r"\blist\(|\btuple\(|\bdict\(|\bset\(|\['msg'\]|\.msg\b|errors\(")
GOLDEN = Path(__file__).parent / "golden" / "messages"
_OURS = "|".join(command.name for command in commands())
COMMAND = re.compile(rf"(?:^|[\s`(:])(?:deploytk (?:{_OURS})|docker (?:pull|run|build)|openssl ec|kubectl) [^;`]*")


@pytest.fixture(scope="module")
def everything() -> tuple[Message, ...]:
    return tuple(messages())


@pytest.fixture(scope="module")
def said(everything: tuple[Message, ...]) -> list[Message]:
    return [message for message in everything if message.kind != "Option"]


def _places(sentence: str) -> list[str]:
    return re.findall(r"\{((?:[^{}]|\{[^{}]*\})*)\}", sentence)


def _options() -> dict[str, set[str]]:
    """Command -> its options, as they are written."""
    found = {}
    for command in commands():
        names = {f"--{name.replace('_', '-')}" for name in command.parameters()}
        found[command.name] = names | _written(command.name)
    return found


def _written(command: str) -> set[str]:
    """Those that are called otherwise than their parameter."""
    section = _reference().partition(f"\n## deploytk {command}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"`(--[a-z0-9-]+)`", section))


def _reference() -> str:
    return (Path(__file__).parents[1] / "docs" / "reference" / "commands.md").read_text()


def _of_targets() -> set[str]:
    return {f"--{name.replace('_', '-')}" for target in loadable_targets() for name in declared(target.about.options)}


def test_a_sentence_begins_small_ends_without_a_stop_and_holds_nothing_of_python(said: list[Message]) -> None:
    odd = [
        f"{message.module}:{message.line}: {sentence!r}"
        for message in said
        if not message.kind.startswith("text in ")
        for sentence in message.sentences
        if (sentence.endswith(".") and "\n" not in sentence and not sentence.endswith((" .wh.", "...")))
        or (re.match(r"[A-Z][a-z]+ (is|are|has|was|the|a) ", sentence) and not _is_name(sentence))
        or any(PYTHONIC.search(place) for place in _places(sentence) if message.module != "preflight/source")
    ]

    assert odd == []


def _is_name(sentence: str) -> bool:
    return sentence.split()[0] in {"Docker", "Sigstore", "Spaces", "LMDeploy", "OpenXLab", "ModelScope", "TurboMind"}


def test_a_sentence_counts_as_people_do_and_holds_no_list_of_python(said: list[Message]) -> None:
    """`1 file(s)` is nothing that anybody says."""
    odd = [
        f"{message.module}:{message.line}: {sentence!r}"
        for message in said
        if message.module != "bench/report"  # reports that are shipped say so
        for sentence in message.sentences
        if re.search(r"\w\((s|es|ies)\)", sentence)
        or any(re.match(r"(list|tuple|set|dict|sorted)\([^)]*\)$|\[.* for .*\]$", place) for place in _places(sentence))
    ]

    assert odd == []


def test_no_error_is_raised_beside_the_reviewed_files(everything: tuple[Message, ...]) -> None:
    """Counted in another way: by the names of errors in the text of the source."""
    names = sorted({message.kind for message in everything if message.kind.endswith("Error")})
    raised = re.compile(rf"(?<![\w.])({'|'.join(names)})\(\s*[^)\s]")
    in_source: dict[tuple[str, str], int] = {}
    for path in PACKAGE.rglob("*.py"):
        text = re.sub(r"class \w+\(.*", "", path.read_text())
        for name in raised.findall(text):
            key = (str(path.relative_to(PACKAGE).with_suffix("")), name)
            in_source[key] = in_source.get(key, 0) + 1
    read = {key: sum((one.module, one.kind) == key for one in everything) for key in in_source}

    assert {key: (read[key], count) for key, count in in_source.items() if read[key] != count} == {}


def test_a_sentence_that_reaches_an_error_by_a_variable_is_in_the_reviewed_files() -> None:
    golden = (GOLDEN / "artifact.txt").read_text() + (GOLDEN / "image.txt").read_text()

    assert "is an array of objects, which loaders unpickle" in golden  # by a function
    assert "take the file from the original model, whole" in golden  # by a name of the module
    assert "the daemon does not list its images" in golden  # handed on to what raises


def test_options_that_hints_name_exist(said: list[Message]) -> None:
    options = _options()
    known = set().union(*options.values()) | _of_targets() | {"--help", "--version", "--json"}
    missing = [
        f"{message.module}:{message.line}: {option} in {sentence!r}"
        for message in said
        for sentence in message.sentences
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", sentence)
        if option not in known and not any(other in sentence for other in OTHERS)
    ]

    assert missing == []


def test_options_that_hints_give_to_a_command_are_its_own(said: list[Message]) -> None:
    options = _options()
    wrong = [
        f"{message.module}:{message.line}: {command} has no {option}: {sentence!r}"
        for message in said
        for sentence in message.sentences
        for command, rest in re.findall(
            r"(?:deploytk |\b)(package|quantize|modernize|plan) ((?:[^;,:`]|, and)*)", sentence
        )
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", rest)
        if command in options and option not in options[command] | {"--help"} and " or " not in rest
    ]

    assert wrong == []


def test_what_is_put_into_a_command_to_be_pasted_is_quoted(said: list[Message]) -> None:
    bare = [
        f"{message.module}:{message.line}: {place} in {sentence!r}"
        for message in said
        for sentence in message.sentences
        for command in COMMAND.findall(sentence)
        if "smoke on {where}" not in sentence  # of a card: where it was measured
        for place in _places(command)
        if not place.startswith(("quoted(", "host", "registry")) and not place.endswith(PLAIN)
    ]

    assert bare == []


def test_every_message_is_as_it_was_reviewed(request: pytest.FixtureRequest, everything: tuple[Message, ...]) -> None:
    """A file per room: `make golden` rewrites them; review the diff as a reader who knows nothing would."""
    rooms: dict[str, list[str]] = {}
    for message in everything:
        lines = rooms.setdefault(message.module.partition("/")[0], [])
        lines.append("\n    ".join((f"{message.module} {message.kind}", *message.sentences)).replace("\r", ""))
    wanted = {room: "\n".join(lines) + "\n" for room, lines in rooms.items()}
    if request.config.getoption("--rewrite-golden"):
        GOLDEN.mkdir(exist_ok=True)
        for stale in GOLDEN.glob("*.txt"):
            stale.unlink()
        for room, text in wanted.items():
            (GOLDEN / f"{room}.txt").write_text(text)
    found = {path.stem: path.read_text() for path in GOLDEN.glob("*.txt")}

    assert found.keys() == wanted.keys()
    assert [room for room in wanted if found[room] != wanted[room]] == [], "make golden, and review the diff"
