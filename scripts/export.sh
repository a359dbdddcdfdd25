#!/usr/bin/env bash
# Make a model package from pictures of good parts: scripts/export.sh --product orange --data rendered
exec "$(dirname "${BASH_SOURCE[0]}")/beltsight" export "$@"
