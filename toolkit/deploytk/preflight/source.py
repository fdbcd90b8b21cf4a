"""Reads the app's Python without running it: what it would do when it starts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from deploytk.bundle import ROOM
from deploytk.preflight.value import Code, Finding
from deploytk.publish.platform import Platform

# What a command line (in a shell text or an argument list) means for the start.
_COMMANDS: tuple[tuple[Code, str, str, str], ...] = (
    ("converts-at-start", r"lmdeploy\s+(convert|lite)\b|turbomind\.deploy|auto_awq",
     "it converts or quantizes the model when it starts", "convert before: publish what `deploytk package` wrote"),
    ("downloads-at-start", r"git\s+(lfs|clone)\b|wget\s|curl\s|huggingface-cli|hf\s+download|openxlab\s+model",
     "it downloads the model before it answers", "answer first and download in the background, as deploytk's app does"),
    ("installs-at-start", r"\b(pip3?|conda|apt(-get)?)\s+install\b",
     "it installs packages when it starts", "name them in requirements.txt or packages.txt"),
)  # fmt: skip

_DOWNLOADERS = {"openxlab.model", "modelscope", "huggingface_hub", "modelscope_hub"}


def check_source(app: Path, start: Path, platform: Platform) -> list[Finding]:
    """What the start file and the modules beside it do at start, as far as their text tells."""
    findings: list[Finding] = []
    for path in [start, *sorted(path for path in (*app.glob("*.py"), *app.glob(f"{ROOM}/*.py")) if path != start)]:
        text = path.read_text(encoding="utf-8", errors="replace")
        try:
            tree = ast.parse(text, feature_version=platform.python)
        except SyntaxError as error:
            there = ".".join(map(str, platform.python))
            message = f"{path.name}, line {error.lineno}: not valid in Python {there}: {error.msg}"
            findings.append(Finding("error", "needs-newer-python", message, "write it for that Python"))
            continue
        except (ValueError, RecursionError) as error:
            message = f"{path.name} is not Python that can be read: {error}"
            findings.append(Finding("error", "malformed", message, "it must be text in UTF-8"))
            continue
        if path == start:
            findings += _of_start(path, tree, platform)
    return findings


def _of_start(path: Path, tree: ast.Module, platform: Platform) -> list[Finding]:
    findings: list[Finding] = []
    for line, command in _commands(tree):
        where = f"{path.name}, line {line}"
        findings += [
            Finding("error", code, f"{where}: {says}: {_short(command)}", hint)
            for code, sign, says, hint in _COMMANDS
            if re.search(sign, command)
        ]
        findings += _of_server(where, command, platform)
    for node in ast.walk(tree):
        where = f"{path.name}, line {getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ImportFrom) and node.module in _DOWNLOADERS and _is_called_at_start(tree, node):
            code, _, says, hint = _COMMANDS[1]
            findings.append(Finding("error", code, f"{where}: {says}, with {node.module}", hint))
        elif isinstance(node, ast.Attribute) and node.attr == "CREATE_NEW_CONSOLE":
            message = f"{where}: CREATE_NEW_CONSOLE exists on Windows only"
            findings.append(
                Finding("error", "windows-only", message, "use subprocess.Popen(..., start_new_session=True)")
            )
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "launch":
            findings += _of_launch(where, node, platform)
    return findings


def _commands(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every command line that the file has: arguments of os.system and subprocess, joined when they are lists."""
    texts = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        owner = ast.unparse(node.func.value)
        if owner in ("os", "subprocess") and node.func.attr in ("system", "popen", "run", "call", "check_call",
                                                                "check_output", "Popen"):  # fmt: skip
            given = node.args[0]
            if isinstance(given, ast.Name) and given.id in texts:
                given = texts[given.id]
            yield node.lineno, _text(given)


def _text(node: ast.expr) -> str:
    """The words of a command, as far as they are written down; ... for the rest."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, (ast.List, ast.Tuple)):
        return " ".join(_text(item) for item in node.elts)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "..." for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return "..."


def _of_server(where: str, command: str, platform: Platform) -> list[Finding]:
    """A server that LMDeploy starts listens where nobody looks unless it is told otherwise."""
    if not re.search(r"lmdeploy\s+serve\s+(gradio|api_server)", command):
        return []
    host = re.search(r"--server[_-]name[= ]+(\S+)", command)
    port = re.search(r"--server[_-]port[= ]+(\S+)", command)
    is_page = "gradio" in command
    found = []
    if not host or host[1] not in (platform.host, "..."):
        is_said = f"listens on {host[1]}" if host else "is not told where to listen, and takes localhost"
        message = f"{where}: the server {is_said}; {platform.name} comes from outside"
        found.append(Finding("error", "wrong-host", message, f"add --server-name {platform.host}"))
    if not port or port[1] not in (str(platform.port), "..."):
        is_said = port[1] if port else ("6006, the default" if is_page else "23333, the default")
        message = f"{where}: the server listens on port {is_said}; {platform.name} looks at {platform.port}"
        found.append(Finding("error", "wrong-port", message, f"add --server-port {platform.port}"))
    return found


def _of_launch(where: str, call: ast.Call, platform: Platform) -> list[Finding]:
    """What Gradio's launch() is told."""
    given = {word.arg: word.value for word in call.keywords if word.arg}
    host, port = given.get("server_name"), given.get("server_port")
    found = []
    if host is None or (isinstance(host, ast.Constant) and host.value != platform.host):
        said = ast.unparse(host) if host else "127.0.0.1, the default"
        message = f"{where}: launch() listens on {said}; {platform.name} comes from outside"
        found.append(Finding("warning", "wrong-host", message, f'give it server_name="{platform.host}"'))
    if isinstance(port, ast.Constant) and port.value != platform.port:
        message = f"{where}: launch() listens on port {ast.unparse(port)}; {platform.name} looks at {platform.port}"
        found.append(Finding("error", "wrong-port", message, f"give it server_port={platform.port}"))
    return found


def _is_called_at_start(tree: ast.Module, imported: ast.ImportFrom) -> bool:
    """Whether something imported there is called outside of every function."""
    names = {alias.asname or alias.name for alias in imported.names}
    outside: list[ast.AST] = [node for node in tree.body if not isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
        for top in outside
        for node in ast.walk(top)
    )


def _short(command: str) -> str:
    line = " ".join(command.split())
    return line if len(line) <= 120 else line[:117] + "..."
