#!/usr/bin/env bash
# Usage: setup-machine.sh
# See to what a container engine needs and only an administrator can give. Quick and silent where nothing is missing;
# otherwise uses root or sudo, or says what an administrator would have to do, and goes on: the engine brings its other
# helpers along (`jupyter apptainer engine install`), and `jupyter apptainer doctor` has the last word.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/machine.sh
. tools/machine.sh

[ "$(uname -s)" = Linux ] || die "Apptainer runs on Linux only; this is $(uname -s)" \
  "use a Linux machine, or a virtual one (Lima, WSL 2)"
have apt-get || warn "tested on Debian and Ubuntu; on this system missing packages are only named, not installed"

if ! have newuidmap && ! install_packages uidmap; then
  warn "the package uidmap is missing, without which an image built here knows only one user; an administrator can add it: $(describe_install uidmap)"
fi
user=$(id -un)
give_subids "$user" ||
  warn "$user has no range in /etc/subuid and /etc/subgid; an administrator can give one: $(describe_give_subids "$user")"
can_open_fuse || open_fuse_to_all || true
