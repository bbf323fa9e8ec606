"""Both runners against real programs: output, deadline, stop ladder, cancellation, terminal."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jupyter_apptainer.engine import runner as runner_module
from jupyter_apptainer.engine.cancel import Cancellation, Cancelled
from jupyter_apptainer.engine.command import Command, Completed
from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.options import build_exec, build_image_build
from jupyter_apptainer.engine.output import KEPT_OUTPUT, OnText
from jupyter_apptainer.engine.runner import AsyncRunner, Runner, spawn
from jupyter_apptainer.errors import ApptainerError, CommandError, CommandTimeout, EngineNotFound

# The same for every user, and slow.
pytestmark = pytest.mark.root

Run = Callable[..., Completed]


def build(code: str, **fields: Any) -> Command[Completed]:
    """A Python program as a command whose value is how it ended."""
    fields.setdefault("timeout_s", 30)
    return Command(
        (sys.executable, "-c", textwrap.dedent(code)), dict(os.environ), lambda done: done, "run a program", **fields
    )


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Run:
    """The two runners behind one name: what holds for one holds for the other."""
    if request.param == "sync":
        return Runner().run

    def run_async(command: Command[Completed], *, on_text: OnText | None = None) -> Completed:
        return asyncio.run(AsyncRunner().run(command, on_text=on_text))

    return run_async


@pytest.fixture
def short_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rungs, with less patience."""
    rungs = tuple((signum, 0.3 if signum != signal.SIGKILL else 5.0) for signum, _ in runner_module.STOP_LADDER)
    monkeypatch.setattr(runner_module, "STOP_LADDER", rungs)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(pid: int) -> bool:
    """Wait for a process that may be anybody's child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 10)[0])
    finally:
        os.close(descriptor)


# --- output


def test_a_commands_value_is_what_its_parser_makes() -> None:
    command = Command(("/bin/echo", "42"), {}, lambda done: int(done.stdout), "ask")
    assert Runner().run(command) == 42
    assert asyncio.run(AsyncRunner().run(command)) == 42


def test_streams_are_kept_apart(run: Run) -> None:
    done = run(build("import sys; print('out'); print('err', file=sys.stderr)"))
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 0)
    assert done.duration_s > 0


def test_text_is_handed_out_while_the_program_runs_and_in_order(run: Run, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    heard: list[tuple[str, str]] = []

    def on_text(stream: str, text: str) -> None:
        heard.append((stream, text))
        if "first" in text:
            # The program waits for this: had its text been kept until the end, neither would ever go on.
            threading.Thread(target=go.write_text, args=("x",), daemon=True).start()

    run(build(f"print('first', flush=True); open({str(go)!r}).read(); print('second')"), on_text=on_text)
    assert "".join(text for _, text in heard) == "first\nsecond\n"
    assert {stream for stream, _ in heard} == {"stdout"}


@pytest.mark.parametrize("size", [0, 5, 3_000_000], ids=["empty", "short", "more-than-a-pipe-holds"])
def test_standard_input_comes_back_from_a_program_that_answers_as_it_reads(run: Run, size: int) -> None:
    code = "import sys\nwhile data := sys.stdin.read(65536): sys.stdout.write(data); sys.stdout.flush()"
    assert len(run(build(code, stdin="x" * size)).stdout) == size


def test_a_program_may_end_without_reading_its_input(run: Run) -> None:
    assert run(build("print('done')", stdin="x" * 3_000_000)).stdout == "done\n"


def test_without_input_there_is_nothing_to_read(run: Run) -> None:
    assert run(build("import sys; print(repr(sys.stdin.read()))")).stdout == "''\n"


@pytest.mark.parametrize("code", [0, 1, 3])
def test_ok_codes_count_as_success(run: Run, code: int) -> None:
    assert run(build(f"raise SystemExit({code})", ok_codes=(0, 1, 3))).returncode == code


def test_other_codes_are_diagnosed(run: Run) -> None:
    with pytest.raises(CommandError) as caught:
        run(build("import sys; print('FATAL:   it broke', file=sys.stderr); sys.exit(255)"))
    assert caught.value.returncode == 255
    assert "it broke" in str(caught.value)


def test_complete_raises_for_no_exit_status() -> None:
    assert Runner().complete(build("raise SystemExit(7)")).returncode == 7
    assert asyncio.run(AsyncRunner().complete(build("raise SystemExit(7)"))).returncode == 7
    assert Runner().complete(build("import os; os.kill(os.getpid(), 9)")).returncode == -signal.SIGKILL


def test_of_a_huge_output_the_end_is_kept(run: Run) -> None:
    done = run(build("import sys\nfor i in range(1_200_000): sys.stdout.write(f'{i:07}\\n')", timeout_s=60))
    assert done.stdout.endswith("1199999\n")
    assert len(done.stdout) <= KEPT_OUTPUT
    assert len(done.stdout) > KEPT_OUTPUT - 200_000


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"\xff\xfeok", "\ufffd\ufffdok", id="invalid"),
        pytest.param("ü€😀".encode(), "ü€😀", id="valid"),
        pytest.param(b"cut\xe2\x82", "cut\ufffd", id="cut-short-at-the-end"),
        pytest.param(b"a\x00b", "a\0b", id="zero"),
    ],
)
def test_output_that_is_no_text_is_replaced(run: Run, data: bytes, expected: str) -> None:
    assert run(build(f"import sys; sys.stdout.buffer.write({data!r})")).stdout == expected


def test_a_character_in_two_pieces_is_one(run: Run, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    code = f"""
        import os
        os.write(1, b'a\\xe2\\x82')
        open({str(go)!r}).read()
        os.write(1, b'\\xac')
    """

    def on_text(_: str, text: str) -> None:
        if text == "a":
            threading.Thread(target=go.write_text, args=("x",), daemon=True).start()

    assert run(build(code), on_text=on_text).stdout == "a€"


def test_the_environment_is_exactly_what_the_command_says(run: Run) -> None:
    command = Command(("/usr/bin/env",), {"ONLY": "this"}, lambda done: done, "list variables")
    assert run(command).stdout == "ONLY=this\n"


def test_the_working_directory(run: Run, tmp_path: Path) -> None:
    assert run(build("import os; print(os.getcwd())", cwd=str(tmp_path))).stdout.strip() == str(tmp_path)


# --- programs that do not start


@pytest.mark.parametrize("start", [Runner().run, spawn, lambda c: asyncio.run(AsyncRunner().run(c))])
def test_a_program_that_is_not_there(start: Callable[[Command[Completed]], Any], tmp_path: Path) -> None:
    command = Command((str(tmp_path / "apptainer"), "--version"), {}, lambda done: done, "ask for the version")
    with pytest.raises(EngineNotFound, match="could not ask for the version") as caught:
        start(command)
    assert str(tmp_path / "apptainer") in caught.value.message
    assert caught.value.hint


def test_a_program_without_permission(tmp_path: Path) -> None:
    (tmp_path / "apptainer").write_text("#!/bin/sh\n")
    with pytest.raises(EngineNotFound, match="Permission denied"):
        Runner().run(Command((str(tmp_path / "apptainer"),), {}, lambda done: done, "ask"), use_pty=True)


def test_a_missing_working_directory_is_not_taken_for_a_missing_engine(run: Run, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        run(build("pass", cwd=str(tmp_path / "gone")))


# --- the end before the end

STUBBORN = """
    import os, signal, sys, time
    log = open({log!r}, 'a', buffering=1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, frame: log.write(signal.Signals(got).name + '\\n'))
    log.write(f'{{os.getpid()}}\\n')
    print('ready', flush=True)
    while True:
        time.sleep(60)
"""


@pytest.mark.usefixtures("short_ladder")
def test_the_deadline_goes_through_the_ladder_to_a_program_that_ignores_it(run: Run, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(CommandTimeout, match="no end after 1 s") as caught:
        run(build(STUBBORN.format(log=str(log)), timeout_s=1.0))
    pid, *signals = log.read_text().split()
    assert signals == ["SIGINT", "SIGTERM"]
    assert caught.value.returncode == -signal.SIGKILL
    assert not is_running(int(pid))


def test_a_polite_program_ends_at_the_first_rung(run: Run) -> None:
    code = "import sys, time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('cleaned up', file=sys.stderr)"
    started = time.monotonic()
    with pytest.raises(CommandTimeout) as caught:
        run(build(code, timeout_s=0.5))
    assert caught.value.returncode == 0
    assert time.monotonic() - started < runner_module.STOP_LADDER[0][1]


def test_where_interrupts_are_ignored_no_rung_is_spent_on_them(run: Run) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    started = time.monotonic()
    try:
        with pytest.raises(CommandTimeout) as caught:
            run(build("import time; time.sleep(60)", timeout_s=0.5))
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught.value.returncode == -signal.SIGTERM
    assert time.monotonic() - started < runner_module.STOP_LADDER[0][1]


def test_a_background_job_that_ignores_interrupts_goes_too(run: Run, tmp_path: Path) -> None:
    script = f"sleep 300 & echo $! > {tmp_path}/pid; wait"
    command = Command(
        ("/bin/sh", "-c", script), dict(os.environ), lambda done: done, "wait", timeout_s=0.5, patience_s=0.5
    )
    with pytest.raises(CommandTimeout):
        run(command)
    assert wait_until_gone(int((tmp_path / "pid").read_text()))


def test_a_program_with_a_group_of_its_own_goes_too(run: Run, tmp_path: Path) -> None:
    """As the engine's FUSE programs have, which it leaves behind when it is ended before they have mounted anything."""
    script = f"set -m; sleep 300 & echo $! > {tmp_path}/pid; wait"
    command = Command(
        ("/bin/sh", "-c", script), dict(os.environ), lambda done: done, "wait", timeout_s=0.5, patience_s=0.5
    )
    with pytest.raises(CommandTimeout):
        run(command)
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_output_closed_long_before_the_end_does_not_escape_the_deadline(run: Run) -> None:
    with pytest.raises(CommandTimeout):
        run(build("import os, time; os.close(1); os.close(2); time.sleep(60)", timeout_s=0.5))


def test_an_unread_input_does_not_escape_the_deadline(run: Run) -> None:
    with pytest.raises(CommandTimeout):
        run(build("import time; time.sleep(60)", stdin="x" * 3_000_000, timeout_s=0.5))


def test_a_keyboard_interrupt_ends_the_program_and_goes_on() -> None:
    told: list[str] = []

    def on_text(_: str, text: str) -> None:
        told.append(text)
        if "\n" in text:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Runner().run(build("import os, time; print(os.getpid(), flush=True); time.sleep(60)"), on_text=on_text)
    assert not is_running(int("".join(told)))


def test_an_error_in_on_text_ends_the_program(run: Run) -> None:
    pids: list[int] = []

    def on_text(_: str, text: str) -> None:
        pids.append(int(text))
        raise LookupError("the caller's own")

    with pytest.raises(LookupError):
        run(build("import os, time; print(os.getpid(), flush=True); time.sleep(60)"), on_text=on_text)
    assert not is_running(pids[0])


@pytest.mark.usefixtures("short_ladder")
@pytest.mark.parametrize("code", [STUBBORN, "print('ready', flush=True)\nimport time; time.sleep(60)"])
def test_cancellation_ends_the_program(code: str, tmp_path: Path) -> None:
    code = f"import os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n" + textwrap.dedent(
        code.replace("{log!r}", repr(str(tmp_path / "log"))).replace("{{", "{").replace("}}", "}")
    )

    async def main() -> None:
        ready = asyncio.Event()
        task = asyncio.ensure_future(AsyncRunner().run(build(code), on_text=lambda *_: ready.set()))
        await ready.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_what_a_thread_waits_for_is_ended_by_whoever_gave_it_up() -> None:
    """As a cancelled start does with what asks the image."""
    told: list[str] = []

    async def main() -> None:
        ready = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_text(_: str, text: str) -> None:
            told.append(text)
            if "\n" in text:
                loop.call_soon_threadsafe(ready.set)

        cancellation = Cancellation()
        command = build("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
        with cancellation.covering():
            work = asyncio.ensure_future(asyncio.to_thread(Runner().run, command, on_text=on_text))
        await ready.wait()
        cancellation.cancel()
        with pytest.raises(Cancelled, match="run a program"):
            await work
        # What comes after it in the same thread ends at once.
        with cancellation.covering(), pytest.raises(Cancelled):
            await asyncio.to_thread(Runner().run, command)
        # Others go on, and nothing is left of it.
        assert (await asyncio.to_thread(Runner().run, build("print(1)"))).stdout == "1\n"

    asyncio.run(main())
    assert not is_running(int("".join(told)))


def test_many_at_once_do_not_mix() -> None:
    async def main() -> list[Completed]:
        commands = [build(f"print({number})") for number in range(12)]
        return list(await asyncio.gather(*(AsyncRunner().run(command) for command in commands)))

    assert [done.stdout for done in asyncio.run(main())] == [f"{number}\n" for number in range(12)]


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    Runner().run(build("pass", stdin="x"), use_pty=True)
    with pytest.raises(CommandTimeout):
        Runner().run(build("import time; time.sleep(60)", timeout_s=0.3), use_pty=True)
    with pytest.raises(EngineNotFound):
        Runner().run(Command((str(tmp_path / "gone"),), {}, lambda done: done, "ask"), use_pty=True)
    assert count() == before


# --- terminal


def test_a_terminal_has_a_hundred_columns() -> None:
    code = "import os; print(*(os.isatty(n) for n in (0, 1, 2)), os.get_terminal_size(2).columns)"
    done = Runner().run(build(code), use_pty=True)
    assert (done.stdout, done.stderr) == ("", "False True True 100\n")


def test_without_a_terminal_there_is_none(run: Run) -> None:
    assert run(build("import sys; print(sys.stdin.isatty(), sys.stderr.isatty())")).stdout == "False False\n"


def test_the_engine_draws_progress_on_the_terminal(engine: EngineInfo, starter_image: Path, tmp_path: Path) -> None:
    env = build_engine_environment(os.environ)
    script = "import sys, time; sys.stderr.write('\\r[=====>    ] 50 % 1s'); sys.stderr.flush()"
    command = build_exec(engine, str(starter_image), ["python3", "-c", script], env, timeout_s=120)
    heard: list[str] = []
    Runner().run(command, on_text=lambda stream, text: heard.append(text), use_pty=True)
    assert re.search(r"50 %", "".join(heard))


# --- the engine


def test_a_cancelled_build_leaves_no_process_and_no_image(
    engine: EngineInfo, starter_image: Path, tmp_path: Path
) -> None:
    env = build_engine_environment({**os.environ, "APPTAINER_TMPDIR": str(tmp_path)})
    command = build_image_build(engine, str(tmp_path / "out.sif"), str(starter_image), env)

    async def main() -> None:
        started = asyncio.Event()
        task = asyncio.ensure_future(AsyncRunner().run(command, on_text=lambda *_: started.set()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    # The engine's temporary folder is the caller's to remove: interrupted early enough, the engine does not.
    assert not (tmp_path / "out.sif").exists()


def test_the_engines_words_are_diagnosed(engine: EngineInfo, tmp_path: Path, run: Run) -> None:
    env = build_engine_environment(os.environ)
    with pytest.raises(ApptainerError) as caught:
        run(build_exec(engine, str(tmp_path / "none.sif"), ["true"], env, timeout_s=60))
    assert caught.value.code == "image-not-found"


def test_spawn_returns_at_once_and_gives_a_session_of_its_own() -> None:
    process = spawn(build("import time; time.sleep(60)"), stdout=subprocess.DEVNULL)
    try:
        assert process.poll() is None
        assert os.getsid(process.pid) == process.pid
    finally:
        process.kill()
        process.wait()
