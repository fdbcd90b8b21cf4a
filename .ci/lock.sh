#!/usr/bin/env bash
# Locks, by version and hash, what the GitHub action, the release and the image of deploytk install: .ci/lock.sh      (needs uv)
# Nothing younger than a week: what was taken over is mostly found out within days.
set -euo pipefail
cd "$(dirname "$0")/locks"
root=$(cd ../.. && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
lock() {
  uv pip compile --quiet --generate-hashes --no-header --no-annotate --universal --python-version 3.10 \
    --exclude-newer "$(date --utc --date='7 days ago' +%FT00:00:00Z)" "$@"
}

# The action: deploytk with what its targets and both engines need, and what its wheel is built with. torch is installed by
# itself, as in images/requirements/lock.sh.
echo "torch ; python_version < '3'" > "$work/no-torch.txt"
printf '%s\n' "deploytk[cpu,gpu,modelscope,scan,sign,ui] @ file://$root" 'hatchling>=1.27' 'sympy>=1.13.3' 'networkx>=2.5.1' > "$work/action.in"
lock --override "$work/no-torch.txt" --no-emit-package deploytk "$work/action.in" -o action.txt

# The release: the same hatchling gives the same bytes.
printf '%s\n' 'build>=1.2' 'hatchling>=1.27' > "$work/build.in"
lock "$work/build.in" -o build.txt

# The image of deploytk itself: what needs no GPU.
printf '%s\n' "deploytk[modelscope,scan,sign] @ file://$root" > "$work/image.in"
lock --no-emit-package deploytk "$work/image.in" -o image.txt
