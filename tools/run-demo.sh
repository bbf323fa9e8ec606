#!/usr/bin/env bash
# Usage: run-demo.sh
# Get the engine, the starter image and its kernelspec, as a user of the released package would, then run the guide in it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/machine.sh
. tools/machine.sh

PATH="$PWD/.venv/bin:$PATH"
say "jupyter apptainer quickstart"
jupyter apptainer quickstart

mkdir -p out
say "running notebooks/quickstart.ipynb in the kernel apptainer-starter"
jupyter nbconvert --log-level WARN --to notebook --execute --ExecutePreprocessor.kernel_name=apptainer-starter \
  --output-dir out notebooks/quickstart.ipynb
jupyter nbconvert --log-level ERROR --to html --output-dir out out/quickstart.ipynb

cat <<EOF

The notebook ran inside a container. What came out of it:
  $PWD/out/quickstart.ipynb
  $PWD/out/quickstart.html      open this one in a browser

Next:
  .venv/bin/jupyter apptainer kernel list       the kernels that run in containers
  .venv/bin/jupyter apptainer kernel explain apptainer-starter
                                                each command, bind and variable, and why it is there
  docs/tutorial/quickstart.md                   the same in a JupyterLab of your own, step by step
EOF
