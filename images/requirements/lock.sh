#!/usr/bin/env bash
# Locks what the images install, by version and hash: images/requirements/lock.sh      (needs uv)
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
lock() { uv pip compile --quiet --generate-hashes --no-header --no-annotate "$@"; }

# The CPU engine, any Python from 3.10 on. torch is installed by itself: its wheels differ by platform.
echo "torch ; python_version < '3'" > "$work/no-torch.txt"
printf '%s\n' "deploytk[cpu,ui] @ file://$root" 'sympy>=1.13.3' 'networkx>=2.5.1' > "$work/cpu.in"
lock --universal --python-version 3.10 --override "$work/no-torch.txt" --no-emit-package deploytk "$work/cpu.in" -o cpu.txt

# The app beside LMDeploy, any Python from 3.10 on.
printf '%s\n' 'fastapi>=0.115' 'gradio>=6,<7' 'uvicorn>=0.30' > "$work/app.in"
lock --universal --python-version 3.10 "$work/app.in" -o app.txt

# LMDeploy: what `plan` pins, for the Python of the base image that it goes on. Up to 0.9.2 it predates transformers 5, and with
# these versions 0.4.2 and 0.7.3 were seen to answer right; torch 2.2 predates numpy 2.
printf '%s\n' 'accelerate<=1.10.1' huggingface-hub==0.36.0 'numpy<2' 'peft<=0.14.0' tokenizers==0.21.4 transformers==4.53.3 > "$work/legacy.txt"
for version in ${1:-0.4.2 0.5.3 0.6.1 0.6.2.post1 0.6.3 0.7.3 0.18.0}; do
  python=3.10 constraints=(--constraint "$work/legacy.txt")
  case $version in 0.1?.*) python=3.12 constraints=() ;; esac
  echo "lmdeploy==$version" > "$work/lmdeploy.in"
  # Its server imports this and its package does not require it.
  case $version in 0.7.*) echo partial-json-parser >> "$work/lmdeploy.in" ;; esac
  lock --python-platform x86_64-manylinux_2_28 --python-version $python "${constraints[@]}" "$work/lmdeploy.in" -o "lmdeploy-$version.txt"
done
