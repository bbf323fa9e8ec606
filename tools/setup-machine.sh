#!/usr/bin/env bash
# Usage: setup-machine.sh [tests]
# See to what a container engine needs and only an administrator can give. Quick and silent where nothing is missing;
# otherwise uses root or sudo, or says what an administrator would have to do, and goes on: the engine brings its other
# helpers along (`jupyter apptainer engine install`), and `jupyter apptainer doctor` has the last word.
# With "tests" also to what only the tests need: an image registry, which they start themselves, and a browser.
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

[ "${1:-}" = tests ] || exit 0
have openssl || install_packages openssl || warn "openssl is missing: $(describe_install openssl)"
have docker-registry || [ -x out/registry/usr/bin/docker-registry ] || unpack_package docker-registry out/registry ||
  warn "docker-registry is missing, and the tests about registries will fail: $(describe_install docker-registry)"
have chromium || install_packages chromium fonts-dejavu-core ||
  warn "chromium is missing, and the tests in a browser will fail: $(describe_install chromium fonts-dejavu-core)"
