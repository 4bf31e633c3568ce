#!/usr/bin/env bash
# Every figure of speed that needs a GPU, in under ten minutes, written under a folder: benchmarks/gpu.sh [FOLDER] (or $OUT).
# TOY=1 runs the same commands at toy sizes, to rehearse them on a CPU.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-${OUT:-runs/benchmark-gpu}}
mkdir -p "$out"
python=${PYTHON:-python}
run() { # NAME SECONDS COMMAND...: a part that fails or takes too long does not take the others with it
  local name=$1 limit=$2
  shift 2
  echo "== $name: $*" | tee -a "$out/gpu.log"
  timeout -k 10 "$limit" "$@" 2>&1 | tee "$out/$name.txt" | tee -a "$out/gpu.log"
}
if [ -n "${TOY:-}" ]; then
  toy=(--model.generator_width 8 --model.discriminator_width 8 --model.mlp_width 32 --model.encoder_width 0.125)
  run iteration-128 120 "$python" benchmarks/iteration.py --config bigbigan/imagenet128 --batch_sizes 2 --repeats 1 --out "$out/iteration-128.json" "${toy[@]}"
  run iteration-32 120 "$python" benchmarks/iteration.py --config bigbigan/cifar10 --batch_sizes 4 --repeats 1 --out "$out/iteration-32.json" "${toy[@]}"
  run gan-32 120 "$python" benchmarks/gan.py --width 4 --batch_size 4 --repeats 1 --out "$out/gan-32.json"
  run encode 120 "$python" benchmarks/encode.py --backbone resnetv2_18 --image_size 32 --images 16 --repeats 1 --out "$out/encode.json"
  exit 0
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv | tee "$out/gpu.log"
run iteration-32 140 "$python" benchmarks/iteration.py --config bigbigan/cifar10 --batch_sizes 256 --repeats 20 --compile default reduce-overhead --out "$out/iteration-32.json"
run iteration-128 200 "$python" benchmarks/iteration.py --config bigbigan/imagenet128 --batch_sizes 64 128 256 --repeats 5 --compile default --out "$out/iteration-128.json"
run gan-32 50 "$python" benchmarks/gan.py --repeats 20 --out "$out/gan-32.json"
run gan-128 50 "$python" benchmarks/gan.py --image_size 128 --width 96 --batch_size 64 --repeats 5 --out "$out/gan-128.json"
run encode 60 "$python" benchmarks/encode.py --images 2048 --batch_size 128 --out "$out/encode.json"
run means 60 "$python" benchmarks/means.py --batch_size 256 --repeats 3 --out "$out/means.json"
