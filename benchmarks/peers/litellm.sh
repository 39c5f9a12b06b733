#!/usr/bin/env bash
# LiteLLM's proxy, with a master key and nothing else: no database, no budgets, no virtual keys.
#
#   benchmarks/peers/litellm.sh install               into $LITELLM_VENV, once
#   benchmarks/peers/litellm.sh serve UPSTREAM_URL     until interrupted, such as http://127.0.0.1:8901/v1
#   benchmarks/peers/litellm.sh version
#
# Variables, with their defaults:
#   LITELLM_VENV=.venv-litellm  its virtual environment; the bare pass-through runs there too
#   PORT=8904                   on 127.0.0.1
#   MASTER_KEY=sk-benchmark     what clients send
#   NAME=instant                name of the model, there and upstream
#
# One worker, as the others have. Its telemetry, its look-ups of prices and its retries are off.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
venv=${LITELLM_VENV:-$here/../../.venv-litellm}
version=1.106.2

install() {
  "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "litellm[proxy]==$version" aiohttp
}

serve() {
  local upstream=$1 name=${NAME:-instant} config
  config=$(mktemp --suffix .yaml)
  trap 'rm -f "$config"' EXIT
  cat >"$config" <<YAML
model_list:
  - model_name: $name
    litellm_params:
      model: openai/$name
      api_base: $upstream
      api_key: none
litellm_settings:
  telemetry: false
  num_retries: 0
general_settings:
  master_key: ${MASTER_KEY:-sk-benchmark}
YAML
  export LITELLM_LOCAL_MODEL_COST_MAP=True LITELLM_LOG=ERROR DO_NOT_TRACK=1
  "$venv/bin/litellm" --config "$config" --host 127.0.0.1 --port "${PORT:-8904}" --num_workers 1
}

case ${1:-} in
  install) install ;;
  serve) serve "${2:?serve wants the base URL of an upstream}" ;;
  version) echo "$version" ;;
  *) sed -n '2,/^set/{/^#/!d; s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
