#!/usr/bin/env bash
# Usage: run-tests.sh [PYTEST ARGUMENT…]
# The whole test suite on the real engine. An ordinary user runs it once, as themselves. Root runs it twice, side by side: as an
# ordinary user in accounts of its own (jpa-tester: a stranger with a fresh clone; jpa-tester-2 has the other half of the tests),
# and as root.
# Nothing that a test starts may be left running afterwards.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/machine.sh
. tools/machine.sh

# Engine, starter image and its kernelspec, as everybody gets them.
get_ready() {
  say "jupyter apptainer quickstart"
  within 20m .venv/bin/jupyter-apptainer quickstart
}

# run_own_part [PYTEST ARGUMENT…]: the suite as the user who runs this script.
run_own_part() {
  local python=$PWD/.venv/bin/python status=0
  say "tests as $(id -un)"
  # The tests give every process that they start this tag; see tests/world.py.
  JPA_TEST_TAG=$("$python" -m tests.world new-tag)
  export JPA_TEST_TAG
  within 40m "$python" -X faulthandler -m pytest --no-skips "$@" || status=$?
  [ "$status" -ne 1 ] || run_failed_again "$@" || return 1
  "$python" -m tests.world check-tag "$JPA_TEST_TAG" || status=1
  return "$status"
}

# within TIME COMMAND…: a suite that does not come to its end is ended, and says where it hung. (One test has a limit of its own, in
# pyproject.toml; this is for what happens between tests and after the last one.)
within() {
  local status=0
  timeout --foreground --signal=ABRT --kill-after=30s "$@" || status=$?
  case $status in 124 | 137) warn "ended after $1: it did not come to its end by itself" ;; esac
  return "$status"
}

# run_failed_again [PYTEST ARGUMENT…]: a fault fails twice; what only a busy machine fails is named, and does not fail the run.
# More than a few failures at once are no accident.
run_failed_again() {
  local failed
  failed=$("$python" -c 'import json; print(*json.load(open(".pytest_cache/v/cache/lastfailed")), sep="\n")')
  [ "$(wc -l <<<"$failed")" -le 3 ] || return 1
  say "failed, and run once more: $failed"
  within 10m "$python" -X faulthandler -m pytest --no-skips --last-failed --last-failed-no-failures none "$@" || return 1
  warn "failed once and passed when repeated, so look at it: $failed"
  status=0
}

if ! is_root; then
  can_open_fuse || die "/dev/fuse cannot be opened, so no image can be mounted" "an administrator can open it: chmod 666 /dev/fuse"
  get_ready
  run_own_part "$@"
  exit
fi

open_fuse_to_all || die "ordinary users need /dev/fuse"
mkdir -p out
declare -A others=()

# run_beside USER [PYTEST ARGUMENT…]: the suite in the account USER, side by side with this one; its output goes to a log.
run_beside() {
  local user=$1 log=$PWD/out/tests-as-$1.log
  say "tests as $user, side by side with those as root: $log"
  # Job control gives it a group of its own, which can be ended as a whole, and leaves it the interrupt signal, which a shell
  # otherwise has its background programs ignore.
  set -m
  tools/run-tests-as-user.sh "$@" >"$log" 2>&1 &
  others[$user]=$!
  set +m
}

trap '
  for user in "${!others[@]}"; do
    kill -- "-${others[$user]}" 2>/dev/null || true
    cat "out/tests-as-$user.log"
  done
  rm -rf "${JPA_TEST_EXAMPLES:-}"' EXIT

# A whole run waits more than it computes, so what an ordinary user proves is shared by two accounts; neither sees the other.
# The first begins with nothing but a fresh clone. The second has what is named here, and with it about half of the work.
apart=(
  tests/test_examples.py tests/test_guides.py tests/browser tests/images tests/server tests/test_benchmarks.py
  tests/integration/test_course.py tests/integration/test_languages.py
)
[ $# -eq 0 ] || apart=()
run_beside jpa-tester "${apart[@]/#/--ignore=}" "$@"
get_ready
# What the second builds of examples/ the run as root uses too, so it begins with that.
JPA_TEST_EXAMPLES=$(mktemp -d)
export JPA_TEST_EXAMPLES
[ ${#apart[@]} -eq 0 ] || JPA_TEST_SHARES=yes run_beside jpa-tester-2 "${apart[@]}"

status=0
run_own_part "$@" || { status=$?; warn "the tests as root failed"; }
for user in "${!others[@]}"; do
  wait "${others[$user]}" || { status=$?; warn "the tests as $user failed"; }
done
exit "$status"
