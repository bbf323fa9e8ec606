# The keeper of one owner of kernels: waits for its end, which closes the pipe, and then enforces the leases of what it left.
# A line means that the owner has ended its kernels itself. "$@" ends what is due and prints for how long the next one may go on.
read -r _ && exit 0
# Sent by whoever takes a kernel over: look again. Whenever it comes, the wait below does not begin, or ends.
again='' sleeper=''
trap 'again=1; [ -z "$sleeper" ] || kill "$sleeper" 2>/dev/null' TERM
while seconds=$("$@") && [ -n "$seconds" ]; do
    sleep "$seconds" &
    sleeper=$!
    [ -n "$again" ] || wait "$sleeper"
    kill "$sleeper" 2>/dev/null
    again='' sleeper=''
done
