#!/usr/bin/env bash
# Usage: setup-venv.sh PYTHON EXTRAS
# Create .venv with PYTHON and install this project into it, editable, with EXTRAS (a comma-separated list).
# A stamp per extra makes a second run immediate; pyproject.toml is newer than it when something may have changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/machine.sh
. tools/machine.sh

python=$1 extras=$2
IFS=, read -r -a stamps <<<"$extras"
stamps=("${stamps[@]/#/.venv/.installed-}")

is_current() {
  local stamp
  [ -x .venv/bin/python ] || return 1
  for stamp in "${stamps[@]}"; do [ "$stamp" -nt pyproject.toml ] || return 1; done
}
is_current && exit 0

command -v "$python" >/dev/null || { [ "$python" = python3 ] && install_packages python3 python3-venv; } || die "no program named '$python'" \
  "install Python 3.10 or newer ($(describe_install python3 python3-venv)), or choose one: make PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  die "$(command -v "$python") is $("$python" --version 2>&1), and 3.10 or newer is needed" "choose another one: make PYTHON=/path/to/python3"
can_make_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }
# Debian splits venv from its own Python; a Python from elsewhere brings it.
can_make_venv || install_packages python3-venv || true
can_make_venv ||
  die "$(command -v "$python") cannot make virtual environments: the package python3-venv is missing" \
    "$(describe_install python3-venv)"

if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
  say "creating .venv with $("$python" --version)"
  rm -rf .venv
  "$python" -m venv .venv
fi
say "installing jupyter-apptainer with its extras '$extras' into .venv"
ask_pip .venv/bin/python install --quiet -e ".[$extras]"
touch "${stamps[@]}"
