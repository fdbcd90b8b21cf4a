#!/usr/bin/env bash
# The whole way on this machine's GPUs, of which no command is told: one for a plain smoke test, then two that share.
#   benchmarks/gpu/whole_way.sh OUT ENVIRONMENT [SECONDS]
# ENVIRONMENT is sourced before LMDeploy. The most important comes first; every step ends in time, and OUT has at most
# eight files: reports, what the API made of requests, the bench, and what was printed.
set -uo pipefail
out=$1 environment=$2 deadline=$((SECONDS + ${3:-130}))
checkout=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
mkdir "$work/bin"
printf '#!/bin/sh\nexec python3 -m lmdeploy "$@"\n' > "$work/bin/lmdeploy" && chmod +x "$work/bin/lmdeploy"
# shellcheck disable=SC1090
source "$environment"
export PATH="$work/bin:$PATH" PYTHONPATH="$checkout/toolkit:$PYTHONPATH" PYTHONUNBUFFERED=1 COLUMNS=120
export DEPLOYTK_DATA_DIR="$work/data"
layers=${LAYERS:-6} slow=${SLOW:-1} # 1.3 billion parameters; on a busy machine every step may take SLOW times as long
model=$work/grown-$layers-layers
dialogs=$checkout/tests/models/dialogs.json

step() { # NAME SECONDS LOG COMMAND...: one line in steps.tsv, everything printed in LOG
  local name=$1 most=$2 log=$3 left=$((deadline - SECONDS)) started code
  shift 3
  [ "$left" -gt 4 ] || { printf '%s\tnot run\n' "$name" >> "$out/steps.tsv"; return 1; }
  started=$(date +%s%3N)
  printf '\n$ %s\n' "$*" >> "$log"
  most=$((most * slow))
  timeout -k 4 "$((left < most ? left : most))" "$@" >> "$log" 2>&1
  code=$?
  printf '%s\t%s\t%s ms\n' "$name" "$code" "$(($(date +%s%3N) - started))" >> "$out/steps.tsv"
  return $code
}
deploytk() { step "$1" "$2" "$3" python3 -m deploytk "${@:4}"; }

serve() { # NAME SECONDS LOG PORT REPORT OPTIONS...: the app, asked one request of each kind, stopped
  local name=$1 most=$(($2 * slow)) log=$3 port=$4 report=$5
  local end=$((SECONDS + most))
  shift 5
  printf '\n$ deploytk serve --port %s %s\n' "$port" "$*" >> "$log"
  timeout -k 4 "$most" python3 -m deploytk serve "$model" --app api --port "$port" "$@" >> "$log" 2>&1 &
  local server=$!
  until python3 -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/ready', timeout=2)" 2>/dev/null; do
    if [ $SECONDS -ge $end ] || ! kill -0 $server 2>/dev/null; then
      printf '%s\tnever ready\n' "$name" >> "$out/steps.tsv"
      kill $server 2>/dev/null
      wait $server
      return 1
    fi
    sleep 0.5
  done
  step "$name" 30 "$log" python3 "$checkout/benchmarks/gpu/features.py" "http://127.0.0.1:$port" "$report"
  kill -TERM $server
  wait $server
}

few=(--golden "$dialogs" --requests 12 --output-tokens 64)
nvidia-smi -q -d MEMORY > "$out/log.txt" 2>&1
step make 20 "$out/log.txt" python3 "$checkout/benchmarks/gpu/grown.py" "$checkout/tests/models/hf-fp16" "$model" "$layers"
(
  export CUDA_VISIBLE_DEVICES=0
  deploytk plan 15 "$out/log.txt" plan "$model"
  deploytk smoke 60 "$out/log.txt" smoke "$model" "${few[@]}" -o "$out/smoke.json"
  deploytk calibrate 10 "$out/log.txt" calibrate "$out/smoke.json"
  deploytk plan-own 10 "$out/log.txt" plan "$model"
) &
first=$!
[ "$(nvidia-smi -L | wc -l)" -gt 1 ] && (
  export CUDA_VISIBLE_DEVICES=1
  serve features 60 "$out/serve.txt" 7861 "$out/features.json"
)
wait $first
cd "$work" || exit 1
deploytk plan-2 15 "$out/log.txt" plan "$model" --tp 2
deploytk smoke-2 60 "$out/log.txt" smoke "$model" --tp 2 "${few[@]}" -o "$out/smoke-2.json"
deploytk bench-2 60 "$out/log.txt" bench "$model" --tp 2 --concurrency 1,8 --input-tokens 64 --output-tokens 64 \
  --repetitions 1 --slo ttft=500ms,tpot=50ms -o "$work/bench"
[ -d "$work/bench" ] && tar -C "$work" -czf "$out/bench.tar.gz" bench
[ $((deadline - SECONDS)) -gt 25 ] && serve features-2 40 "$out/serve.txt" 7862 "$out/features-2.json" --tp 2
cat "$out/steps.tsv"
