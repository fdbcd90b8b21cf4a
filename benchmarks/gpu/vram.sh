#!/usr/bin/env bash
# Predicted against measured VRAM on a GPU: a 7B-shaped model, fp16 and W4A16, KV fp16 and int8, through deploytk's own app.
# Also the tiny AWQ model with a quantized KV cache, whose pool must be a whole slab. Limited to about five minutes.
#   benchmarks/gpu/vram.sh OUT ENVIRONMENT MAKE_7B [GPU]
# ENVIRONMENT is sourced before LMDeploy; MAKE_7B writes a random checkpoint of InternLM-Chat-7B's shape to its argument.
set -uo pipefail
out=$1 make_7b=$3 gpu=${4:-H200}
checkout=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/bin"
printf '#!/bin/sh\nexec python3 -m lmdeploy "$@"\n' > "$work/bin/lmdeploy" && chmod +x "$work/bin/lmdeploy"
# shellcheck disable=SC1090
source "$2"
export PATH="$work/bin:$PATH" PYTHONPATH="$checkout/toolkit:$PYTHONPATH"
models=$checkout/tests/models
smoke() { timeout 90 python3 -m deploytk.cli smoke "$@" --engine turbomind --gpu "$gpu" --requests 12; }

for kv in int8 int4; do
  smoke "$models/hf-awq" --kv $kv --golden "$models/dialogs.json" -o "$out/hf-awq.$kv.smoke.json"
done
timeout 120 python3 "$make_7b" "$work/fp16"
timeout 200 lmdeploy lite auto_awq "$work/fp16" --calib-samples 0 --work-dir "$work/awq"
chmod a+r "$work"/fp16/* "$work"/awq/*
for row in "fp16 none" "fp16 int8" "awq none" "awq int8"; do
  read -r model kv <<< "$row"
  pinned=(--session-len 512 --max-batch-size 1 --kv "$kv")
  python3 -m deploytk.cli plan "$work/$model" --gpu "$gpu" "${pinned[@]}" --json > "$out/$model.$kv.plan.json"
  smoke "$work/$model" "${pinned[@]}" -o "$out/$model.$kv.smoke.json"
done
