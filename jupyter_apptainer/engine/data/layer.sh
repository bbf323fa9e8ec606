#!/bin/sh
# A step of a layered build: run a program on the layers below, and keep what it changes.
#
#   layer.sh ACTION STORE LOWER NEW OPTIONS FROM PROGRAM [ARGUMENT…]
#
# ACTION: `run` a program; `post`: a script of a definition, by the engine's `exec`, whose command line PROGRAM is, up to the
# image. STORE: the folder of all layers. LOWER: those below, the uppermost first, as overlayfs wants them; empty for a first
# one. NEW: the folder of this one: `tree` gets the changes, `root` is the whole. OPTIONS: those of the mount; `copied:` before
# them for a whole copy of what is below, where an overlay would not do. FROM: layers of another stage, which the program finds in
# NEW/from; empty for none.
#
# It runs in a mount and a process namespace of its own: with it ends all that it has started and mounted.
set -eu
trap 'exit 130' INT TERM
action=$1 store=$2 lower=$3 new=$4 options=$5 from=$6
shift 6
# As the engine has it in a build.
umask 0002
here=$PWD
cd "$store"
root=$store/$new/root
mkdir -p "$new/root" "$new/tree"
rm -rf "$new/work"
mkdir "$new/work"
if [ -n "$lower" ]; then
    # The folder above all is that of the uppermost layer.
    chmod --reference="${lower%%:*}" "$new/tree"
    chown --reference="${lower%%:*}" "$new/tree"
fi

# run PROGRAM…: so that a signal ends all at once; a shell answers none while it waits for a program in the foreground. What it
# starts in the background ignores interrupts, as no program of the engine's own build would.
run() {
    if env --default-signal true 2>/dev/null; then
        set -- env --default-signal "$@"
    fi
    "$@" &
    wait "$!"
}

mount_overlay() {
    mount -t overlay overlay -o "lowerdir=$lower,upperdir=$1,workdir=$new/work,${options#copied:}" "$new/root"
}

if [ "$options" != "${options#copied:}" ]; then
    mkdir "$new/unused"
    mount_overlay "$new/unused"
    cp -a "$new/root/." "$new/tree/"
    umount "$new/root"
    mount --bind "$new/tree" "$new/root"
elif [ -n "$lower" ]; then
    mount_overlay "$new/tree"
fi

if [ -n "$from" ]; then
    # An overlay that nobody can write to has two layers at least.
    mkdir -p "$new/none" "$new/from"
    mount -t overlay overlay -o "lowerdir=$new/none:$from,${options#copied:}" "$new/from"
fi

status=0
if [ "$action" = post ]; then
    # The engine's own build does the same; where the image has no such file, nothing is mounted.
    for name in resolv.conf hosts; do
        if [ -r "$new/root/etc/$name" ] && [ -r "/etc/$name" ]; then
            cp -L "/etc/$name" "$new/$name"
            set -- "$@" -B "$store/$new/$name:/etc/$name"
        fi
    done
    cp "$new/script" "$new/root/.post.script"
    chmod 755 "$new/root/.post.script"
    words=$(cat "$new/shell")
    cd /
    # The words of a `%post` line, as the engine splits them.
    # shellcheck disable=SC2086
    run "$@" "$root" $words /.post.script || status=$?
    cd "$store"
    rm -f "$new/root/.post.script"
    if [ -e "$new/root/.post.state" ]; then
        cp "$new/root/.post.state" "$new/state"
        rm -f "$new/root/.post.state"
    fi
else
    cd "$here"
    run "$@" || status=$?
    cd "$store"
fi

if [ "$status" = 0 ]; then
    # What a script has left running would go on writing. From the first process of a namespace this reaches all others in it.
    if [ "$$" = 1 ]; then
        kill -KILL -1 2>/dev/null || :
    fi
    # Which of the files with several names are no more where they were: they may have been moved as copies of their own.
    if [ -e "$new/linked" ]; then
        # shellcheck disable=SC2016
        (cd "$new/root" && xargs -0 -r sh -c \
            'for name; do [ -e "$name" ] || [ -L "$name" ] || printf "%s\0" "$name"; done' sh) <"$new/linked" >"$new/gone"
    fi
    if [ -n "$lower" ]; then
        umount "$new/root"
    fi
    if [ -n "$from" ]; then
        umount "$new/from"
        rmdir "$new/from" "$new/none"
    fi
    # Only here: the kernel takes all permissions from a part of it.
    rm -rf "$new/work" "$new/unused"
    find "$new/tree" -type f -printf '%n %i %P\0' >"$new/files"
    du -sk "$new/tree" | cut -f1 >"$new/size"
fi
exit "$status"
