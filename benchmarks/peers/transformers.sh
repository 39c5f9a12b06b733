#!/usr/bin/env bash
# `transformers serve`, by continuous batching.
#
#   benchmarks/peers/transformers.sh install            into $TRANSFORMERS_VENV, once
#   benchmarks/peers/transformers.sh serve MODEL_FOLDER    until interrupted
#
# Variables, with their defaults:
#   TRANSFORMERS_VENV=.venv-transformers   its virtual environment
#   DTYPE=float32                          or bfloat16
#   PORT=8003                              on 127.0.0.1
#   BATCHING=1                             0 for one request at a time
#
# It takes text prompts alone, knows neither logprobs nor echo, and names a model by its folder:
# compare with --model transformers=MODEL_FOLDER. Its seed is global.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
venv=${TRANSFORMERS_VENV:-$here/../../.venv-transformers}

install() {
  "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "torch==2.13.0" "transformers[serving]==5.23.0" accelerate
}

serve() {
  local batching=()
  [ "${BATCHING:-1}" = 0 ] || batching=(--continuous-batching)
  export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1
  exec "$venv/bin/transformers" serve "$1" --device cpu --dtype "${DTYPE:-float32}" \
    --host 127.0.0.1 --port "${PORT:-8003}" "${batching[@]}"
}

case ${1:-} in
  install) install ;;
  serve) serve "${2:?serve wants the folder of a model}" ;;
  *) sed -n '2,/^set/{/^#/!d; s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
