#!/usr/bin/env bash
# Libraries that look inside models, each in an environment of its own.
#
#   benchmarks/peers/inside.sh install     into .venv-nnsight and .venv-transformer-lens, once
#
# interp-engine comes with Transom's own environment.
set -euo pipefail

here=$(cd "$(dirname "$0")/../.." && pwd)

install() {
  "${PYTHON:-python3}" -m venv "$here/$1"
  "$here/$1/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 "${@:2}"
}

case ${1:-} in
  install)
    install .venv-nnsight nnsight==0.8.1 'transformers<5.23' accelerate
    install .venv-transformer-lens transformer-lens==4.3.0
    ;;
  *)
    echo "usage: $0 install" >&2
    exit 2
    ;;
esac
