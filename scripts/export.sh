#!/bin/sh
# Make a model package from pictures of good parts: scripts/export.sh --product orange --data rendered
set -eu
root=$(dirname "$0")/..
python=python3
if [ -x "$root/.venv/bin/python" ]; then python="$root/.venv/bin/python"; fi
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m host.export "$@"
