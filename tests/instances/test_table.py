"""One walk through /proc, and what it tells about many processes."""

from __future__ import annotations

import subprocess

from jupyter_apptainer.instances.process import ProcessIdentity, read_namespace
from jupyter_apptainer.instances.table import ProcessTable


def test_it_tells_families_sessions_and_namespaces() -> None:
    # The sleep in the background gets another parent, and stays in the session.
    script = "(sleep 1000 >/dev/null & echo $!) | cat; read line"
    with subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as shell:
        assert shell.stdin
        assert shell.stdout
        stray = ProcessIdentity.find(int(shell.stdout.readline()))
        try:
            assert stray
            table = ProcessTable.read()
            own = ProcessIdentity.find(shell.pid)
            assert own
            assert table.is_alive(own)
            assert not table.is_alive(ProcessIdentity(own.pid, own.start_ticks + 1))
            assert {shell.pid, stray.pid} <= {stat.pid for stat in table.list_session(shell.pid)}
            assert shell.pid in {stat.pid for stat in table.find_descendants(table.stats[shell.pid].ppid)}
            namespace = read_namespace(shell.pid, "pid") or 0
            groups = table.group_by_namespace([namespace, 1])
            assert shell.pid in {stat.pid for stat in groups[namespace]}
            assert groups[1] == []
        finally:
            if stray:
                stray.send_signal(9)
            shell.stdin.close()
    # It is looked at as it was.
    assert table.is_alive(own)
    assert not ProcessTable.read().is_alive(own)
