#!/bin/sh
# Stands in the place of the image's start script: runs what it is given as the instance's main process, with a log of its own.
log=$1
shift
exec "$@" </dev/null >>"$log" 2>&1
