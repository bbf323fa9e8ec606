"""Lines that people get wrong, and what they are told: the mistake, and the way out. None of them starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_apptainer.errors import ApptainerError
from tests.magics.conftest import Session

# Line or cell, a part of the message, a part of the hint.
BAD = [
    ("%apptainer isntance list", "no command 'isntance'", "`instance`"),
    ("%apptainer exce $image ls", "no command 'exce'", "`exec`"),
    ("%apptainer imges", "no command 'imges'", "`images`"),
    ("%apptainer kernl list", "no command 'kernl'", "`kernel`"),
    ("%apptainer docter", "no command 'docter'", "`doctor`"),
    ("%apptainer statsu", "no command 'statsu'", "`status`"),
    ("%apptainer qwertz", "no command 'qwertz'", "help"),
    ("%apptainer instance", "`instance` lacks a command", "list, run, start"),
    ("%apptainer instance lsit", "`instance` has no command 'lsit'", "`list`"),
    ("%apptainer instance ls", "`instance` has no command 'ls'", "list"),
    ("%apptainer overlay crate x.img", "`overlay` has no command 'crate'", "`create`"),
    ("%apptainer key lst", "`key` has no command 'lst'", "`list`"),
    ("%apptainer cache claen", "`cache` has no command 'claen'", "`clean`"),
    ("%apptainer registry signin", "`registry` has no command 'signin'", "login"),
    ("%apptainer sif", "`sif` lacks a command", "list"),
    ("%apptainer remote", "`remote` lacks a command", "list"),
    ("%apptainer --nosuch exec $image ls", "no option --nosuch before its command", "after it"),
    ("%apptainer --verbos exec $image ls", "no option --verbos", "--verbose"),
    ("%apptainer exec --bidn /data $image ls", "`exec` has no option --bidn", "--bind"),
    ("%apptainer exec --overly x.img $image ls", "`exec` has no option --overly", "--overlay"),
    ("%apptainer exec --gpu $image ls", "`exec` has no option --gpu", "help exec"),
    ("%apptainer exec -Z $image ls", "`exec` has no option -Z", "help exec"),
    ("%apptainer run -it $image", "`run` has no option -t", "help run"),
    ("%apptainer pull --nohttps docker://a", "`pull` has no option --nohttps", "--no-https"),
    ("%apptainer build --sandbx d $image", "`build` has no option --sandbx", "--sandbox"),
    ("%apptainer instance start --writeable-tmpfs $image web", "no option --writeable-tmpfs", "--writable-tmpfs"),
    ("%apptainer exec --bind", "--bind of `exec` lacks its value", "help exec"),
    ("%apptainer exec -B", "-B of `exec` lacks its value", "help exec"),
    ("%apptainer instance stop --timeout", "--timeout of `instance stop` lacks its value", "help instance stop"),
    ("%apptainer exec", "`exec` lacks IMAGE", "<container>"),
    ("%apptainer exec $image", "`exec` lacks COMMAND", "<command>"),
    ("%apptainer run", "`run` lacks IMAGE", "run options"),
    ("%apptainer pull", "`pull` lacks URI", "pull options"),
    ("%apptainer push $image", "`push` lacks URI", "push options"),
    ("%apptainer build x.sif", "`build` lacks SOURCE", "build"),
    ("%apptainer inspect", "`inspect` lacks IMAGE", "inspect"),
    ("%apptainer inspect a b", "takes 1 argument, and there are 2", "quotes"),
    ("%apptainer overlay create --size 64", "`overlay create` lacks FILE", "image"),
    ("%apptainer sif dump 1", "`sif dump` lacks IMAGE", "sif_path"),
    ("%apptainer sign", "`sign` lacks IMAGE", "sign"),
    ("%apptainer instance start $image", "`instance start` lacks NAME", "instance name"),
    ("%apptainer instance stop", "`instance stop` lacks NAME", "--all"),
    ("%apptainer instance logs", "`instance logs` lacks NAME", "instance logs web"),
    ("%apptainer instance logs nobody", "no instance is named 'nobody'", "running"),
    ("%apptainer instance stop 'no*'", "no instance is named 'no*'", "running"),
    ("%apptainer instance stats nobody", "no instance is named 'nobody'", "running"),
    ("%apptainer shell $image", "interactive shell cannot run in a cell", "terminal"),
    ("%apptainer exec $image bash", "bash would wait", "%%apptainer exec"),
    ("%apptainer exec $image python", "python would wait", "%%apptainer exec"),
    ("%apptainer key newpair", "passphrase of a new key", "terminal"),
    ("%apptainer exec instance://this ls", "runs on the host, in no container", "kernel add"),
    ("%apptainer restart --nv", "runs on the host, in no container", "Change Kernel"),
    ("%apptainer exec $image ls | wc -l", "'|' is a shell's word", "!apptainer"),
    ("%apptainer exec $image ls > f", "'>' is a shell's word", "--out"),
    ("%apptainer exec 'my image.sif ls", "a quote ' has no end", "close it"),
    ("%apptainer exec $NOT_SET_ANYWHERE ls", "no variable NOT_SET_ANYWHERE", "single quotes"),
    ("%apptainer --out", "--out lacks its value", "--out NAME"),
    ("%apptainer --out 1x exec $image ls", "cannot be the name of a variable", "variable"),
    ("%apptainer --no-raise-eror exec $image ls", "no option --no-raise-eror", "--no-raise-error"),
    ("%apptainer --bg --quiet exec $image ls", "--bg shows nothing", ""),
    ("%apptainer --var x pull docker://a", "--var is for cells", ""),
    ("%apptainer registry login -u ada -p secret docker://a", "a password in a cell", "asked"),
    ("%apptainer registry login docker://a", "lacks --username", "-u ada"),
    ("%apptainer help nosuchword", "no command 'nosuchword'", "help"),
    ("%%apptainer pull docker://a\nx", "`pull` takes no lines below it", "build, exec"),
    ("%%apptainer build x.sif\n\n  \n", "no recipe below the line", "Bootstrap"),
    ("%%apptainer --var x exec $image sh\necho", "--var needs a Python", "python"),
    ("%%apptainer --var x:yaml exec $image python\n1", "'yaml' is no form", "pickle"),
    ("%apptainer --var x exec $image python", "--var needs lines below it", "%%apptainer"),
    (
        "x = {1}\nget_ipython().run_cell_magic('apptainer', f'--var x exec {image} python', '1')",
        "a set does not travel",
        "pickle",
    ),
    ("%%apptainer build --detach x.sif\nBootstrap: docker\n", "--detach is for a recipe in a file", "--bg"),
    ("%%apptainer build --dockerfile --environment x.sif\nFROM a", "one recipe", ""),
    ("%%apptainer exec --nosuch $image\nls", "`exec` has no option --nosuch", "help exec"),
]


@pytest.mark.parametrize(("code", "message", "hint"), BAD, ids=[code.splitlines()[0][1:60] for code, _, _ in BAD])
def test_a_wrong_line_is_explained(session: Session, code: str, message: str, hint: str, tmp_path: Path) -> None:
    outcome = session.run(code)
    assert isinstance(outcome.error, ApptainerError), outcome
    assert message in outcome.error.message
    assert hint in (outcome.error.hint or "")
    # What a person sees is the message and the hint: no traceback, no page of usage.
    shown = outcome.out + outcome.err
    assert outcome.error.message in shown
    assert "Traceback" not in shown
    assert len(shown.splitlines()) <= 4, shown
    assert list(tmp_path.iterdir()) == []


def test_the_table_has_sixty_lines() -> None:
    assert len({code for code, _, _ in BAD}) >= 60
