#!/usr/bin/env bash
# A leg of the results that need a GPU, as far as it comes in $MINUTES; the same command goes on: benchmarks/results.sh LEG [PIECE ...]
# Legs, pieces and the variables that set them: docs/results/gpu.md. TOY=1 rehearses a leg on a CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python}" benchmarks/results.py "$@"
