#!/bin/sh
# debootstrap inside the engine's own folder, for any user.
#
# Where the user namespace knows one user only (nothing in /etc/subuid), no file can be given to another: tar is told not to
# try, and the second stage runs under fakeroot, whose library is in the new system for as long as that takes.
set -e
prefix=@PREFIX@
share=$prefix/share/debootstrap
# `share/bin` has an arch-test that says yes: the real one cannot answer inside a user namespace.
PATH=$share/bin:$PATH:/usr/sbin:/sbin:$prefix/libexec/apptainer/bin
DEBOOTSTRAP_DIR=$share
export PATH DEBOOTSTRAP_DIR

if [ "$(awk '{ ids += $3 } END { print ids }' /proc/self/uid_map)" != 1 ]; then
    exec /bin/sh "$share/debootstrap" "$@"
fi
if [ "$1" != --in-own-mounts ]; then
    exec unshare --mount "$0" --in-own-mounts "$@"
fi
shift

position=0
for word in "$@"; do
    case $word in
    -*) ;;
    *)
        position=$((position + 1))
        if [ "$position" = 2 ]; then target=$word; fi
        ;;
    esac
done

TAR_OPTIONS=--no-same-owner /bin/sh "$share/debootstrap" --foreign "$@"

libraries=$prefix/lib/libfakeroot
mkdir -p "$target/dev" "$target/proc" "$target$libraries"
cp "$libraries"/*.so "$target$libraries/"
mount --rbind /dev "$target/dev"
mount --rbind /proc "$target/proc"
status=0
unset DEBOOTSTRAP_DIR
# A change of owner fails with EINVAL here, which fakeroot would pass on; told not to try, it only remembers.
FAKEROOTDONTTRYCHOWN=1 fakeroot chroot "$target" /debootstrap/debootstrap --second-stage || status=$?
if [ "$status" != 0 ]; then
    cat "$target/debootstrap/debootstrap.log" || true
fi
umount --lazy "$target/proc" "$target/dev"
rm -r "$target$libraries"
below=${libraries#/*/}
(cd "$target/${libraries%"$below"}" && rmdir -p --ignore-fail-on-non-empty "${below%/*}")
exit "$status"
