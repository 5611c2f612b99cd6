#!/bin/bash
# Measures Omnibus on this machine's GPU, without any network: see pack.sh, which made this folder.
#
#     bash run.sh RESULTS [BATCH_SIZES]
#
# Into the folder RESULTS: sweep-*.json and .svg for each type of weights, capture.txt (beside tfjs's operations one by one),
# profile.txt (decode steps and prefill, kernel by kernel). GPT-2 124M with random weights: time does not depend on them.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
results=$(mkdir -p "${1:?which folder?}" && cd "$1" && pwd)
sizes=${2:-1,2,4,8,16,32,64,128,256,512}
export NO_COLOR=1 DENO_NO_UPDATE_CHECK=1

if ! ldconfig -p | grep -q libvulkan.so.1; then
  export LD_LIBRARY_PATH="$here/loaders/usr/lib/x86_64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
if [ -z "${VK_DRIVER_FILES:-}" ] && ! ls /etc/vulkan/icd.d/*.json /usr/share/vulkan/icd.d/*.json > /dev/null 2>&1; then
  driver=$(find /usr/local /opt -name 'nvidia_icd*.json' 2> /dev/null | head -n 1)
  [ -n "$driver" ] && export VK_DRIVER_FILES="$driver"
fi
omnibus() { "$here/deno" run -A --no-config --cached-only "$here/$@"; }

omnibus sweep.js --backend webgpu --batch-sizes 1 --repeats 1 --json "$results/try.json" --chart "$results/try.svg" ||
  { echo "There is no GPU that WebGPU can use here: is the driver's Vulkan part installed?"; exit 1; }
rm -f "$results"/try.*
for dtype in float32 bfloat16; do
  omnibus sweep.js --backend webgpu --dtype $dtype --batch-sizes "$sizes" --warmup 20 --repeats 5 \
    --json "$results/sweep-$dtype.json" --chart "$results/sweep-$dtype.svg" 2>&1 | tee "$results/sweep-$dtype.txt"
done
omnibus webgpu_profile.js --batch-sizes 1,8,32,128,512 2>&1 | tee "$results/profile.txt"
omnibus webgpu_profile.js --batch-sizes 1,128 --prefill 2>&1 | tee -a "$results/profile.txt"
omnibus webgpu_capture.js --model gpt2 --batch-sizes 1,16,128 2>&1 | tee "$results/capture.txt"
