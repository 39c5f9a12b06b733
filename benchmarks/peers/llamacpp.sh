#!/usr/bin/env bash
# llama.cpp's own server, built from the source distribution of llama-cpp-python, and that package's server.
#
#   benchmarks/peers/llamacpp.sh install                build both; wants cmake and a C++ compiler
#   benchmarks/peers/llamacpp.sh serve MODEL.gguf       llama.cpp's server
#   benchmarks/peers/llamacpp.sh serve-python MODEL.gguf    llama-cpp-python's, which scores prompts (slowly)
#
# Variables, with their defaults:
#   LLAMACPP_HOME=.venv-llamacpp   environment, source and build
#   PORT=8002                      on 127.0.0.1
#   NAME=file's name               name of the model
#   THREADS=all cores
#   SEQUENCES=32                   sequences at once, of 1024 tokens each
#   PROMPT_CACHE=1                 0 leaves the cache of prompts out, which changes answers
#
# Weights are what the file holds: Q4_1 is not float32, and a ratio between them compares two different models.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
home=${LLAMACPP_HOME:-$here/../../.venv-llamacpp}
version=0.3.36

install() {
  local source
  mkdir -p "$home/source"
  "${PYTHON:-python3}" -m venv "$home"
  "$home/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
    --dest "$home/source" "llama-cpp-python==$version"
  source=$(compgen -G "$home/source/*.tar.gz" | head -n 1)
  "$home/bin/python" -m pip install --quiet --disable-pip-version-check "$source[server]"
  tar -xzf "$source" -C "$home/source" --strip-components 1
  cmake -S "$home/source/vendor/llama.cpp" -B "$home/build" -DCMAKE_BUILD_TYPE=Release \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF
  cmake --build "$home/build" --target llama-server --parallel "$(nproc)"
}

serve() {
  local cache=()
  [ "${PROMPT_CACHE:-1}" = 1 ] || cache=(--no-cache-prompt)
  exec "$home/build/bin/llama-server" --model "$1" --alias "${NAME:-$(basename "$1" .gguf)}" \
    --host 127.0.0.1 --port "${PORT:-8002}" --threads "${THREADS:-$(nproc)}" \
    --parallel "${SEQUENCES:-32}" --ctx-size $((1024 * ${SEQUENCES:-32})) "${cache[@]}"
}

serve_python() {
  exec "$home/bin/python" -m llama_cpp.server --model "$1" --model_alias "${NAME:-$(basename "$1" .gguf)}" \
    --host 127.0.0.1 --port "${PORT:-8002}" --n_threads "${THREADS:-$(nproc)}" --n_ctx 2048 --logits_all True
}

case ${1:-} in
  install) install ;;
  serve) serve "${2:?serve wants a GGUF file}" ;;
  serve-python) serve_python "${2:?serve-python wants a GGUF file}" ;;
  *) sed -n '2,/^set/{/^#/!d; s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
