#!/usr/bin/env bash
# XLA without a TPU: torch 2.9 and torch_xla 2.9 on the CPU, in an environment of its own (several GiB), train, resume and compare.
#   bash benchmarks/xla_cpu.sh [ENVIRONMENT]
set -euo pipefail
cd "$(dirname "$0")/.."
environment=${1:-.venv-xla}
if [ ! -x "$environment/bin/python" ]; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install "torch==2.9.*" "torch_xla==2.9.*" torchvision -e .
fi
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
# The digits preset with small networks: XLA's compilation of the whole ones takes the CPU much longer.
train=("$environment/bin/python" bigbigan/train.py "--run.root=$runs" --run.precision=float32 --run.probe=False --run.log_every=24
    --model.latent_dim=8 --model.embedding_dim=4 --model.generator_width=2 --model.discriminator_width=2 --model.mlp_width=16
    --model.mlp_layers=2 --model.encoder=resnetv2_18 --model.encoder_width=0.03125 --model.encoder_blocks 1 1 1 1
    --model.encoder_mlp_width=16 --model.encoder_mlp_layers=2 --data.batch_size=8 --data.workers=0 --run.statistics_images=16
    --run.grid=2 --run.sample_every=480 --run.checkpoint_every=96)
USE_TORCH_XLA=0 "${train[@]}" --run.name=cpu --run.images=144 | tee "$runs/native" # Accelerate's switch: where torch_xla is, it takes it
grep -q "device *cpu" "$runs/native"
PJRT_DEVICE=CPU "${train[@]}" --run.name=xla --run.images=96 | tee "$runs/first"
grep -q "device *xla" "$runs/first"
PJRT_DEVICE=CPU "${train[@]}" --run.name=xla --run.images=144 | tee "$runs/resumed"
grep -q "resumed from .* at 96 images" "$runs/resumed"
"$environment/bin/python" - "$runs" <<'END'
import json
import sys
from pathlib import Path

xla, cpu = ([json.loads(x) for x in (Path(sys.argv[1]) / name / "stats.jsonl").read_text().splitlines()] for name in ("xla", "cpu"))
for a, b in zip(xla[:2], cpu[:2], strict=True):
    gap = max(abs(a[k] - b[k]) for k in a if k.startswith(("loss", "score")))
    print(f"{a['images_seen']} images: losses and scores differ by {gap:.1e} at most")
    assert gap < 1e-3, "expected the first iterations of the CPU"
END
