#!/usr/bin/env bash
# Both runs on a GPU machine, each within eight minutes; see the two programs for what they write.
#   benchmarks/gpu/modernized.sh tiny|7b OUT CURRENT_ENVIRONMENT [LEGACY_ENVIRONMENT SCRIPTS]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$here/../../toolkit${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
case ${1:-} in
  tiny) shift; exec timeout -k 20 475 python3 "$here/modernized.py" "$@" ;;
  7b) shift; exec timeout -k 20 475 python3 "$here/modernized_7b.py" "$@" ;;
  *) sed -n 2,3p "$0" >&2; exit 2 ;;
esac
