#!/usr/bin/env bash
# Make a model package from pictures of good parts: scripts/export.sh --product orange --data rendered
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
(cd "$root" && source scripts/environment.sh && need_environment .venv --editable '.[sim,host]')
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$root/.venv/bin/python" -m host.export "$@"
