#!/bin/bash
# Packs what a machine with a GPU and without any network needs to measure Omnibus on WebGPU: Deno, the programs with their
# packages in one file each, and the Vulkan and GL loaders. About 35 MB.
#
#     bash lib/bench/peers/gpu/pack.sh FOLDER        here: makes FOLDER/omnibus-gpu.tar.xz
#     tar xf omnibus-gpu.tar.xz && bash omnibus-gpu/run.sh RESULTS        there
#
# Linux on x86-64, on both sides; Debian's or Ubuntu's apt-get here, for the loaders.
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
target=$(mkdir -p "${1:?which folder?}" && cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/omnibus-gpu/loaders"

cp "$(deno eval --no-config 'console.log(Deno.execPath())')" "$work/omnibus-gpu/deno"
for program in lib/cli/sweep lib/cli/generate lib/bench/peers/webgpu_capture lib/bench/peers/webgpu_profile; do
  (cd "$root" && deno bundle --quiet --platform deno --output "$work/omnibus-gpu/$(basename $program).js" "$program.ts")
done
cp "$root/lib/bench/peers/gpu/run.sh" "$work/omnibus-gpu/"
(cd "$work/omnibus-gpu/loaders" && apt-get download -qq libvulkan1 libegl1 libglvnd0 libopengl0 libgl1 libglx0 libgles2)
for package in "$work"/omnibus-gpu/loaders/*.deb; do dpkg -x "$package" "$work/omnibus-gpu/loaders"; done
rm "$work"/omnibus-gpu/loaders/*.deb

tar -C "$work" -c omnibus-gpu | xz -9 -T1 > "$work/omnibus-gpu.tar.xz"
mv "$work/omnibus-gpu.tar.xz" "$target/"
ls -l "$target/omnibus-gpu.tar.xz"
