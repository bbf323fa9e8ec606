# shellcheck shell=bash
# Sourced by the other scripts: what this machine offers, and how to get what it lacks.
# Root is used only for system packages and for two settings of the machine, each named before it happens.

say() { printf '==> %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
  exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

have() { command -v "$1" >/dev/null 2>&1; }

# Root, or a sudo that answers: without a terminal it must do so without a password.
can_become_root() {
  is_root && return 0
  have sudo || return 1
  if [ -t 0 ]; then return 0; else sudo -n true 2>/dev/null; fi
}

as_root() {
  if is_root; then "$@"; else sudo "$@"; fi
}

# try_twice TIME COMMAND…: what asks a mirror or an index has a limit, and a second chance; a program, not a function.
try_twice() {
  local limit=$1
  shift
  timeout --foreground --kill-after=30s "$limit" "$@" && return 0
  warn "failed, or took longer than $limit, and is tried once more: $*"
  timeout --foreground --kill-after=30s "$limit" "$@"
}

# ask_apt ARGUMENT…: apt-get that does not wait for ever: for a mirror that is silent, for a lock that another program holds.
ask_apt() {
  local -a root=()
  case $1 in download) ;; *) is_root || root=(sudo) ;; esac
  try_twice 15m "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o Acquire::Retries=3 \
    -o Acquire::http::Timeout=60 -o Acquire::https::Timeout=60 -o DPkg::Lock::Timeout=300 "$@"
}

# install_packages PACKAGE…: returns 1 where this cannot be done here.
install_packages() {
  have apt-get && can_become_root || return 1
  if is_root; then say "installing system packages: $*"; else say "sudo is needed to install system packages: $*"; fi
  ask_apt update
  # What an installation that was ended in the middle has left: apt refuses to go on before it is set up.
  [ -z "$(dpkg --audit 2>/dev/null)" ] || as_root dpkg --configure -a
  ask_apt install "$@" >/dev/null
}

# unpack_package PACKAGE DIR: the files of a package whose service must not start on this machine; nothing is installed, and
# root is needed only where apt has no lists yet. Returns 1 where this cannot be done here.
unpack_package() {
  have apt-get && have dpkg-deb || return 1
  local folder status=0
  folder=$(mktemp -d)
  say "unpacking the package $1 into $2"
  (
    cd "$folder"
    timeout 5m apt-get -qq download "$1" 2>/dev/null || { can_become_root && ask_apt update && ask_apt download "$1"; }
  ) && mkdir -p "$2" && dpkg-deb --extract "$folder"/*.deb "$2" || status=1
  rm -rf "$folder"
  return "$status"
}

# ask_pip PYTHON ARGUMENT…: pip of an environment; an index that is silent is asked again.
ask_pip() {
  local python=$1
  shift
  try_twice 15m "$python" -m pip --disable-pip-version-check --retries 5 --timeout 60 "$@"
}

# How a person would install packages here, for messages.
describe_install() {
  if have apt-get; then
    printf 'sudo apt-get install --no-install-recommends %s' "$*"
  else
    printf 'install what Debian calls %s with the package manager of this system' "$*"
  fi
}

# Prints the first free range of 65536 subordinate ids above those that are given away.
next_subids() {
  cat /etc/subuid /etc/subgid 2>/dev/null |
    awk -F: 'BEGIN { first = 100000 } $2 + $3 > first { first = $2 + $3 } END { print first "-" first + 65535 }'
}

has_subids() { grep -q "^$1:" /etc/subuid 2>/dev/null && grep -q "^$1:" /etc/subgid 2>/dev/null; }

# How an administrator would do it, for messages.
describe_give_subids() {
  local range
  range=$(next_subids)
  printf 'usermod --add-subuids %s --add-subgids %s %s' "$range" "$range" "$1"
}

# give_subids USER: images are built in a user namespace that maps these ids.
give_subids() {
  local range
  has_subids "$1" && return 0
  can_become_root || return 1
  as_root touch /etc/subuid /etc/subgid
  range=$(next_subids)
  say "giving $1 the subordinate ids $range in /etc/subuid and /etc/subgid"
  as_root usermod --add-subuids "$range" --add-subgids "$range" "$1"
}

can_open_fuse() { [ -c /dev/fuse ] && [ -r /dev/fuse ] && [ -w /dev/fuse ]; }

# open_fuse_to_all: containers of ordinary users mount their images through /dev/fuse.
open_fuse_to_all() {
  [ -c /dev/fuse ] || { warn "there is no /dev/fuse: load the kernel module with \`modprobe fuse\`"; return 1; }
  [ "$(stat -c %a /dev/fuse)" = 666 ] && return 0
  can_become_root || { warn "/dev/fuse is closed to ordinary users; an administrator can open it: chmod 666 /dev/fuse"; return 1; }
  say "opening /dev/fuse to all users, as it is on most systems: chmod 666 /dev/fuse (until the next boot)"
  as_root chmod 666 /dev/fuse
}
