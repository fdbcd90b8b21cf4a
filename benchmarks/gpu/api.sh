#!/usr/bin/env bash
# Asks the app every feature of the API, with real LMDeploy behind it: is what the plan promises there, the rest refused?
#   benchmarks/gpu/api.sh OUT ENVIRONMENT [SECONDS] [ENGINE...]
# ENVIRONMENT is sourced before LMDeploy. ENGINEs are turbomind (first, the more important) and cpu. OUT gets a
# table as JSON for each (features-ENGINE.json: as_planned of every row), its plan and its log. Every request ends in 30 s.
# The model is the tiny one with a chat template that has tools, so that the plan names a parser for them.
set -uo pipefail
out=$1 environment=$2 deadline=$((SECONDS + ${3:-300}))
shift $(($# < 3 ? $# : 3))
engines=${*:-turbomind cpu}
checkout=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
mkdir -p "$out" "$work/bin"
printf '#!/bin/sh\nexec python3 -m lmdeploy "$@"\n' > "$work/bin/lmdeploy" && chmod +x "$work/bin/lmdeploy"
# shellcheck disable=SC1090
source "$environment"
export PATH="$work/bin:$PATH" PYTHONPATH="$checkout/toolkit:${PYTHONPATH:-}" PYTHONUNBUFFERED=1 NO_PROXY='*'
export DEPLOYTK_DATA_DIR="$work/data"
python3 -c 'import lmdeploy, xgrammar; print("lmdeploy", lmdeploy.__version__, "with xgrammar")' ||
  echo "without xgrammar LMDeploy refuses every response_format and required tool: 'Request preprocessing failed'"

model=$work/tiny-with-tools
cp -r "$checkout/tests/models/hf-fp16" "$model"
cat > "$model/chat_template.jinja" << 'END'
{%- if tools %}<|im_start|>system
You may call functions: {% for tool in tools %}{{ tool | tojson }}
{% endfor %}Answer with <tool_call>{"name": <function-name>, "arguments": <args-json-object>}</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}
END

for engine in $engines; do
  left=$((deadline - SECONDS))
  [ $left -gt 20 ] || { echo "$engine: not run, no time left"; continue; }
  python3 -m deploytk plan "$model" --engine "$engine" --json > "$out/plan-$engine.json" 2> "$out/log-$engine.txt" || continue
  has=$(python3 -c 'import json, sys; print(",".join(json.load(open(sys.argv[1]))["features"]))' "$out/plan-$engine.json")
  port=$((7870 + RANDOM % 100))
  timeout -k 4 $left python3 -m deploytk serve "$model" --engine "$engine" --app api --port $port >> "$out/log-$engine.txt" 2>&1 &
  server=$!
  until python3 -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/ready', timeout=2)" 2>/dev/null; do
    if [ $SECONDS -ge $deadline ] || ! kill -0 $server 2>/dev/null; then
      echo "$engine: never ready"
      break
    fi
    sleep 0.5
  done
  echo "== $engine: $has"
  timeout $((deadline - SECONDS > 5 ? deadline - SECONDS : 5)) python3 "$checkout/benchmarks/gpu/features.py" \
    "http://127.0.0.1:$port" "$out/features-$engine.json" "$has"
  kill -TERM $server 2>/dev/null
  wait $server
done
python3 - "$out" << 'END'
import json, pathlib, sys
for path in sorted(pathlib.Path(sys.argv[1]).glob("features-*.json")):
    table = json.loads(path.read_text())
    off = [name for name, row in table.items() if not row["as_planned"]]
    print(path.name, f"{len(table) - len(off)} of {len(table)} as planned", *off, sep="; ")
END
