#!/usr/bin/env bash
# Usage: run-tests-as-user.sh USER [PYTEST ARGUMENT…]
# As root: create the ordinary user USER where there is none, give them a copy of this tree, and run `make test` there as a
# stranger would: own virtual environment, own engine, own starter image. Of root's environment only the settings for
# proxies, certificates and package indexes go along. Afterwards nothing of USER's may be running.
# JPA_TEST_SHARES=yes: USER is given root's starter image, and the folder $JPA_TEST_EXAMPLES to build in what root's tests use too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/machine.sh
. tools/machine.sh

user=$1
shift
is_root || die "only root can run the tests as another user"

# One at a time: two accounts must not be given the same range.
mkdir -p out
exec 9>out/.accounts.lock
flock 9
if ! id "$user" >/dev/null 2>&1; then
  say "creating the user $user for the tests"
  useradd --create-home --shell /bin/bash "$user"
fi
give_subids "$user"
exec 9>&-
home=$(getent passwd "$user" | cut -d: -f6)
tree=$home/jupyter_apptainer

say "copying the tree to $tree"
runuser -u "$user" -- mkdir -p "$tree" "$home/.cache" "$home/.config/pip"
# What an earlier run installed stays: .venv is made anew only where it is missing.
find "$tree" -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +
list_files() {
  git -c safe.directory="$PWD" ls-files -z --cached --others --exclude-standard 2>/dev/null ||
    find . -type f ! -path './.venv/*' ! -path './out/*' ! -path './.git/*' -print0
}
list_files | while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
  tar --create --null --files-from=- | tar --extract --directory "$tree" --no-same-owner
chown -R "$user:" "$tree"

# share SOURCE DESTINATION OWNER: saves a download or a build; a copy, because neither account may touch the other's files.
share() {
  [ -e "$1" ] && [ ! -e "$2" ] || return 0
  install -d -o "$3" "$(dirname "$2")"
  cp -r "$1" "$2"
  chown -R "$3:" "$2"
}
own_cache=$(.venv/bin/python -m pip cache dir 2>/dev/null || true)
[ -z "$own_cache" ] || share "$own_cache" "$home/.cache/pip" "$user"
share jupyter_apptainer/labextension "$tree/jupyter_apptainer/labextension" "$user"
shared=()
if [ "${JPA_TEST_SHARES:-}" = yes ]; then
  chown "$user:" "$JPA_TEST_EXAMPLES"
  shared=("JPA_TEST_EXAMPLES=$JPA_TEST_EXAMPLES")
  images=.local/share/jupyter-apptainer/images
  runuser -u "$user" -- mkdir -p "$home/$images"
  for file in starter.sif starter.json; do share "$HOME/$images/$file" "$home/$images/$file" "$user"; done
fi
for file in "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf"; do
  [ ! -e "$file" ] || install -m 600 -o "$user" "$file" "$home/.config/pip/pip.conf"
done

passed=()
while IFS= read -r name; do
  case $name in
    PIP_CACHE_DIR | PIP_TARGET | PIP_PREFIX | PIP_USER | PIP_REQUIRE_VIRTUALENV) ;;
    CI | TERM | PIP_* | [Hh][Tt][Tt][Pp]_[Pp][Rr][Oo][Xx][Yy] | [Hh][Tt][Tt][Pp][Ss]_[Pp][Rr][Oo][Xx][Yy] | [Nn][Oo]_[Pp][Rr][Oo][Xx][Yy] | \
      NODE_EXTRA_CA_CERTS | NPM_CONFIG_* | npm_config_* | SSL_CERT_FILE | SSL_CERT_DIR | REQUESTS_CA_BUNDLE | CURL_CA_BUNDLE) passed+=("$name=${!name}") ;;
  esac
done < <(compgen -e)

# Quoted for the shell that make starts, and for make itself.
arguments=${*@Q}
status=0
runuser -u "$user" -- env -i HOME="$home" USER="$user" LOGNAME="$user" SHELL=/bin/bash LANG=C.UTF-8 \
  PATH=/usr/local/bin:/usr/bin:/bin "${passed[@]}" "${shared[@]}" \
  make --no-print-directory -C "$tree" test PYTEST_ARGS="${arguments//\$/\$\$}" </dev/null || status=$?

# The account is ours alone, so anything that still runs in it is a leftover.
.venv/bin/python -m tests.world check-user "$user" || status=1

exit "$status"
