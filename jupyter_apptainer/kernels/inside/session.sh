# Runs inside the container, before a kernel that is not Python: makes it the leader of a session of its own, so that an
# interrupt reaches the kernel and the programs that it started. See shim.py.
if command -v setsid >/dev/null 2>&1; then
    exec setsid "$@"
fi
exec "$@"
