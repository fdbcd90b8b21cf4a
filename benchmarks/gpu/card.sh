#!/usr/bin/env bash
# The lines of a card, pasted as a reader pastes them, in front of TurboMind; then what else people look at there.
#   OUT=DIR benchmarks/gpu/card.sh [SECONDS]       (in a checkout, with LMDeploy's environment sourced)
# The tiny model is packaged; every code block of README.md and README_zh.md is run in the bundle, in the card's order, and
# asked for the model's known answers. Lines that install, build images or download are checked or named, not run.
# Then: tools that must be called, --reasoning-parser, the page without Gradio, the pages of smoke and bench.
# OUT gets card.tsv (one line per block or step: what, result, seconds), pages, reports and logs. Every step ends in time.
set -uo pipefail
: "${OUT:?}"
checkout=$PWD model=$PWD/.gpu/m/hf-fp16 work=$(mktemp -d)
[ -d "$model" ] || model=$PWD/tests/models/hf-fp16
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
mkdir -p "$OUT" "$work/bin"
command -v lmdeploy > /dev/null || printf '#!/bin/sh\nexec python3 -m lmdeploy "$@"\n' > "$work/bin/lmdeploy"
printf '#!/bin/sh\nexec python3 -m deploytk "$@"\n' > "$work/bin/deploytk"
printf '#!/bin/sh\nexec python3 "$@"\n' > "$work/bin/python"
chmod +x "$work"/bin/*
export PATH="$work/bin:$PATH" PYTHONPATH="$checkout/toolkit:${PYTHONPATH:-}" PYTHONUNBUFFERED=1 NO_PROXY='*' COLUMNS=80
export DEPLOYTK_DATA_DIR="$work/data" HF_HUB_OFFLINE=1
# LMDeploy 0.18.0 requires xgrammar 0.2.0 or later: without it every required call of a tool is 500.
if compgen -G "$checkout/.gpu/wheels/*.whl" > /dev/null; then
  python3 -m pip install -q --no-deps --no-index --target "$work/wheels" "$checkout"/.gpu/wheels/*.whl &&
    export PYTHONPATH="$work/wheels:$PYTHONPATH"
fi
cat > "$work/card.py" << 'PY'
import json, os, pathlib, re, shutil, signal, subprocess, sys, time, urllib.error, urllib.request
from importlib.metadata import PackageNotFoundError, version

MODEL, WORK, CHECKOUT, OUT = (pathlib.Path(one) for one in sys.argv[1:5])
DEADLINE = time.monotonic() + float(sys.argv[5])
DIALOGS = json.loads((CHECKOUT / "tests/models/dialogs.json").read_text())
KNOWN = {one["prompt"]: one["answer"] for one in DIALOGS}
KNOWN["Who are you?"] = KNOWN["who are you"]
TABLE = (OUT / "card.tsv").open("w")


def left(most):
    return max(1.0, min(most, DEADLINE - time.monotonic()))


def note(what, result, started=None):
    took = "" if started is None else f"{time.monotonic() - started:.1f} s"
    line = "\t".join(str(one).replace("\n", " | ")[:400] for one in (what, result, took))
    print(line, flush=True)
    TABLE.write(line + "\n")
    TABLE.flush()


def log_of(name):
    return (OUT / f"{name}.log").open("ab")


def run(name, command, most, cwd=None, stdin=None):
    if DEADLINE - time.monotonic() < 5:
        note(name, "not run, no time left")
        return None, ""
    started = time.monotonic()
    try:
        done = subprocess.run(command, shell=isinstance(command, str), executable="/bin/bash" if isinstance(command, str) else None,
                              cwd=cwd, input=stdin, capture_output=True, text=True, timeout=left(most))
        code, said, cried = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        code, said, cried = "timeout", (late.stdout or b"").decode(errors="replace"), (late.stderr or b"").decode(errors="replace")
    with log_of("commands") as log:
        log.write(f"\n$ {command}\n{said}\n{cried}\n[{code}]\n".encode())
    note(name, f"exit {code}: {said.strip()[-200:] or cried.strip()[-200:]}", started)
    return code, said


class Server:
    def __init__(self, name, command, url, most, cwd):
        self.started = time.monotonic()
        self.log = log_of(name)
        self.child = subprocess.Popen(command, shell=True, executable="/bin/bash", cwd=cwd, stdout=self.log, stderr=self.log,
                                      start_new_session=True)
        self.is_ready = False
        end = time.monotonic() + left(most)
        while time.monotonic() < end and self.child.poll() is None:
            try:
                with urllib.request.urlopen(url, timeout=2):
                    self.is_ready = True
                    break
            except OSError:
                time.sleep(0.5)
        note(f"{name}: {command.splitlines()[-1][:160]}", "ready" if self.is_ready else "NEVER READY", self.started)

    def stop(self):
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.child.pid, sign)
                self.child.wait(8)
                break
            except (subprocess.TimeoutExpired, ProcessLookupError):
                continue
        time.sleep(1)


def post(url, body, headers={}):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=left(40)) as answer:
            text = answer.read().decode()
            return answer.status, json.loads(text) if text.startswith("{") else text
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError as error:
        return None, str(error)


def ask(base, prompt, **fields):
    with urllib.request.urlopen(f"{base}/v1/models", timeout=10) as answer:
        name = json.load(answer)["data"][0]["id"]
    return post(f"{base}/v1/chat/completions",
                {"model": name, "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 64, **fields})


def blocks(card):
    """Language and text of every fenced block, in order; a reader pastes them so."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)


def pasted(text):
    """The lines of a shell block that are run here; those that install are checked, those for Docker are named."""
    lines = []
    for line in text.strip().splitlines():
        if line.startswith("pip install "):
            for wanted in re.findall(r"'[^']+'|\S+", line[len("pip install "):]):
                wanted = wanted.strip("'")
                if wanted.startswith("-"):
                    continue
                name, _, pin = re.sub(r"\[.*?\]", "", wanted).partition("==")
                try:
                    there = version(name)
                    note(f"requirement: {wanted}", "is here" if not pin or there == pin else f"OTHER VERSION {there}")
                except PackageNotFoundError:
                    note(f"requirement: {wanted}", "not here" if not wanted.endswith("txt") else "a file of the bundle, not installed")
        elif line.startswith("docker "):
            note(line, "not run: no Docker here")
        else:
            lines.append(line)
    return "\n".join(lines)


def right(said, prompt):
    wanted = KNOWN[prompt]
    return "RIGHT" if said.strip() and (wanted.startswith(said.strip()) or said.strip().startswith(wanted)) else f"NOT THE KNOWN ANSWER: {said.strip()[:100]}"


def run_card(name, bundle, ran):
    card = (bundle / name).read_text()
    shutil.copy(bundle / name, OUT / name)
    asks = "你是谁" if name.endswith("zh.md") else "Who are you?"
    apps = []
    for language, text in blocks(card):
        if language in ("text", "bibtex") or (language, text) in ran:
            note(f"{name} [{language}] {text.splitlines()[0][:80]}", "nothing to run" if language else "as in README.md")
            continue
        ran.add((language, text))
        if language == "python":
            (WORK / "pasted.py").write_text(text)
            if "OpenAI(" in text and not (apps and apps[-1].is_ready):
                apps.append(Server("app", "python app.py", "http://127.0.0.1:7860/ready", 90, bundle))
            code, said = run(f"{name}: {'OpenAI' if 'OpenAI(' in text else 'transformers'} block", ["python3", str(WORK / "pasted.py")], 90, cwd=bundle)
            note(f"{name}: its answer", right(said.strip().splitlines()[-1] if said.strip() else "", asks))
            if "OpenAI(" in text:
                page(apps[-1])
            continue
        shell = pasted(text)
        if not shell:
            continue
        if "lmdeploy serve api_server" in shell:
            server = Server("lmdeploy", shell, "http://127.0.0.1:23333/v1/models", 90, bundle)
            if server.is_ready:
                for prompt in ("你是谁", "Who are you?"):
                    status, answer = ask("http://127.0.0.1:23333", prompt)
                    note(f"{name}: lmdeploy serve, {prompt}", f"{status} {right(answer['choices'][0]['message']['content'], prompt) if status == 200 else answer}")
            server.stop()
        elif shell.strip() == "python app.py":
            apps.append(Server("app", shell, "http://127.0.0.1:7860/ready", 90, bundle))
        else:
            run(f"{name}: {shell.splitlines()[0]}", shell, 120, cwd=bundle)
    for app in apps:
        app.stop()


def page(app):
    """What a browser gets and asks of the page, without one."""
    try:
        for path in ("/", "/ready", "/queue?ticket=none"):
            with urllib.request.urlopen(f"http://127.0.0.1:7860{path}", timeout=10) as answer:
                text = answer.read().decode()
                if path == "/":
                    (OUT / "chat-page.html").write_text(text)
                note(f"page {path}", f"{answer.status} {answer.headers['Content-Type']} {len(text)} characters {text[:150] if path != '/' else ''}")
        status, text = ask("http://127.0.0.1:7860", "你是谁", stream=True, stream_options={"include_usage": True})
        parts = [json.loads(line[6:]) for line in str(text).splitlines() if line.startswith("data: {")]
        said = "".join(part["choices"][0]["delta"].get("content") or "" for part in parts if part["choices"])
        note("page: a streamed answer", f"{status} {right(said, '你是谁')} usage {parts[-1].get('usage') if parts else None}")
    except OSError as error:
        note("page", f"FAILED {error}")
    run("chat in the terminal", ["python3", "-m", "deploytk", "chat", "http://127.0.0.1:7860"], 60, stdin="你是谁\n")


TOOLS = """{%- if tools %}<|im_start|>system
You may call functions: {% for tool in tools %}{{ tool | tojson }}
{% endfor %}Answer with <tool_call>{"name": <function-name>, "arguments": <args-json-object>}</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}
"""
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "The weather in a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 8}}, "required": ["city"], "additionalProperties": False}}}


def thinking():
    """The tiny model with a template that has tools, and a tokenizer that knows <think> and </think>."""
    model = WORK / "tiny-thinks"
    shutil.copytree(MODEL, model)
    (model / "chat_template.jinja").write_text(TOOLS)
    place = model / "tokenizer.json"
    tokenizer = json.loads(place.read_text())
    known = [one["id"] for one in tokenizer["added_tokens"]] + list(tokenizer["model"]["vocab"].values())
    for at, content in enumerate(("<think>", "</think>"), max(known) + 1):
        tokenizer["added_tokens"].append({"id": at, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
                                          "normalized": False, "special": False})
    place.write_text(json.dumps(tokenizer, ensure_ascii=False))
    server = Server("tools", f"deploytk serve {model} --app api --port 7871", "http://127.0.0.1:7871/ready", 90, WORK)
    if server.is_ready:
        for name, fields in (("required", {}), ("required, streamed", {"stream": True}), ("required, short", {"max_tokens": 4}),
                             ("auto, streamed", {"stream": True, "tool_choice": "auto"}),
                             ("named", {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}})):
            started = time.monotonic()
            status, answer = ask("http://127.0.0.1:7871", "你是谁", **{"tools": [WEATHER], "tool_choice": "required", "max_tokens": 200, **fields})
            (OUT / f"tools-{name.replace(', ', '-')}.json").write_text(answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False, indent=1))
            calls = "tool_calls" in json.dumps(answer) and "get_weather" in json.dumps(answer)
            note(f"tools, {name}", f"{status} {'A CALL' if calls else 'no call'} {json.dumps(answer, ensure_ascii=False)[:250]}", started)
    server.stop()
    server = Server("thinks", f"deploytk serve {model} --app api --port 7872 --reasoning-parser default", "http://127.0.0.1:7872/ready", 90, WORK)
    if server.is_ready:
        for fields in ({}, {"stream": True}):
            status, answer = ask("http://127.0.0.1:7872", "你是谁", **fields)
            (OUT / f"thinks{'-streamed' if fields else ''}.json").write_text(answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False, indent=1))
            note(f"--reasoning-parser {fields}", f"{status} {'reasoning_content' in json.dumps(answer)} {json.dumps(answer, ensure_ascii=False)[:250]}")
    server.stop()


def deploytk(name, most, *words):
    return run(name, ["python3", "-m", "deploytk", *map(str, words)], most, cwd=WORK)[0]


print("xgrammar", version("xgrammar"), flush=True)
bundle = WORK / "bundle"
ran = set()
few = ("--golden", CHECKOUT / "tests/models/dialogs.json", "--requests", "30", "--output-tokens", "48")
axes = ("--concurrency", "1,2,8", "--input-tokens", "64", "--output-tokens", "64", "--repetitions", "2", "--slo", "ttft=500ms,tpot=50ms")


def pages():
    deploytk("smoke, page", 120, "smoke", MODEL, *few, "-o", OUT / "smoke.html", "--raw", WORK / "raw.jsonl")
    deploytk("report, json", 30, "report", WORK / "raw.jsonl", "-o", OUT / "smoke.json")


def bench():
    for name, kv in (("a", "none"), ("b", "int8")):
        deploytk(f"bench {kv}", 120, "bench", MODEL, "--kv", kv, *axes, "-o", WORK / name)
        for one in ("report.html", "report.md"):
            if (WORK / name / one).is_file():
                shutil.copy(WORK / name / one, OUT / f"bench-{kv}-{one}")
    deploytk("bench --compare, page", 30, "bench", "--compare", WORK / "a", WORK / "b", "-o", OUT / "compare.html")


for step in (lambda: deploytk("package", 60, "package", MODEL, "-o", bundle, "--license", "mit"),
             lambda: run_card("README.md", bundle, ran), lambda: run_card("README_zh.md", bundle, ran), pages, thinking, bench):
    try:
        step()
    except Exception as error:  # the next step is another matter
        note("step", f"BROKEN {error!r}")
PY
nvidia-smi -L
python3 "$work/card.py" "$model" "$work" "$checkout" "$OUT" "${1:-540}"
