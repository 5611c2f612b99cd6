#!/bin/bash
# Measures Omnibus on libtensorflow with CUDA on this machine's NVIDIA GPU, beside Hugging Face transformers on PyTorch.
#
#     deno task setup --cuda
#     bash lib/bench/peers/gpu/run_cuda.sh RESULTS [BATCH_SIZES [COMPILED_BATCH_SIZES]]
#
# Into the folder RESULTS: sweep-*.json, .svg and .txt for each type of weights, transformers.json and .txt if python3 has torch
# and transformers, and profile-*.csv, the kernels of a decode step, if there is NVIDIA's ncu. GPT-2 124M with random weights:
# time does not depend on them. PyTorch takes most of the time, for compiling; so that may have fewer batch sizes.
# OMNIBUS_DENO is how to run Deno, if it is not `deno run -A`.
set -uo pipefail
results=$(mkdir -p "${1:?which folder?}" && cd "$1" && pwd)
sizes=${2:-1,2,4,8,16,32,64,128,256,512} compiled=${3:-1,8,32,128,512}
cd "$(dirname "$0")/../../.."
export NO_COLOR=1
read -ra deno <<< "${OMNIBUS_DENO:-deno run -A}"

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$results/gpu.txt"
for dtype in float32 bfloat16; do
  "${deno[@]}" lib/cli/sweep.ts --backend tensorflow --dtype $dtype --batch-sizes "$sizes" --warmup 20 --repeats 5 \
    --json "$results/sweep-$dtype.json" --chart "$results/sweep-$dtype.svg" 2>&1 | tee "$results/sweep-$dtype.txt"
done
if python3 -c "import torch, transformers" 2> /dev/null; then
  python3 lib/bench/peers/gpu/transformers_sweep.py "$results/transformers.json" "$sizes" "$compiled" 2>&1 |
    tee "$results/transformers.txt"
fi
if command -v ncu > /dev/null; then
  for size in 1 128 512; do
    ncu --profile-from-start off --metrics gpu__time_duration.sum --csv --log-file "$results/profile-$size.csv" \
      "${deno[@]}" lib/bench/peers/gpu/cuda_steps.ts $size
  done
fi
