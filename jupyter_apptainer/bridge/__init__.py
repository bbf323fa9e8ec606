"""What a kernel inside a container may ask of the host, and the policy for it.

`lent` is lent to the container. On the host, `listener` waits on a socket per kernel and costs nothing until somebody
connects; then `worker`, a process of its own, serves requests: `request` reads them, `grammar` and `allowed` decide what
runs, `session` runs it and streams its output. docs/reference/bridge.md describes what goes over the socket.
"""
