#!/usr/bin/env bash
# The seed's two tables, and what 4 bits cost or bring, on a GPU: a 7B-shaped model as fp16 and as W4A16.
#   benchmarks/gpu/bench.sh vram|speed OUT ENVIRONMENT FP16 AWQ
# ENVIRONMENT is sourced before LMDeploy; FP16 and AWQ are model directories. Run again with the same OUT to resume:
# stopped at any time, only the cells under way are lost.
set -uo pipefail
what=$1 out=$2 fp16=$4 awq=$5
checkout=$(cd "$(dirname "$0")/../.." && pwd)
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
printf '#!/bin/sh\nexec python3 -m lmdeploy "$@"\n' > "$bin/lmdeploy" && chmod +x "$bin/lmdeploy"
# shellcheck disable=SC1090
source "$3"
export PATH="$bin:$PATH" PYTHONPATH="$checkout/toolkit:$PYTHONPATH"
bench() { python3 -m deploytk bench "$@" --input-tokens 128 --output-tokens 128; }
case $what in
  vram) # one session of 512 tokens, and a pool for that
    bench "$fp16" "$awq" --kv none,int8 --concurrency 1 --session-len 512 --repetitions 1 -o "$out" ;;
  speed)
    bench "$fp16" "$awq" --engines turbomind,huggingface --kv none,int8,int4 --concurrency 1,8,32 -o "$out" ;;
esac
