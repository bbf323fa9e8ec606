"""Commands and scripts as people have them: what becomes of them, and which mistakes are found, on which line."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.errors import SpecError
from jupyter_apptainer.kernels.pasted.convert import PastedKernel
from jupyter_apptainer.kernels.spec import parse_container_spec
from tests.kernels.pasted.conftest import ReadPasted

IPYKERNEL = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]

# As in a published guide: four mistakes, in the lines 1, 9, 10 and 11.
GUIDE_SCRIPT = """\
#!bin/bash
#SBATCH --job-name=train
#SBATCH --gres=gpu:1
#SBATCH --time=02:00:00

module load apptainer
export DATA_DIR=data
srun apptainer exec --nv \\
    --bnd $DATA_DIR:/data:rw \\
    --env HF_HOME \\
    --bind $PROJECT_SCRATCH:/scratch \\
    --writable-tmpfs --fakeroot \\
    img python -c "import torch; print(torch.cuda.is_available())" > log-%j.txt 2>&1
"""


def list_levels(pasted: PastedKernel) -> list[tuple[int | None, str]]:
    return [(remark.line, remark.level) for remark in pasted.remarks if remark.level != "note"]


def list_mistakes(pasted: PastedKernel) -> list[str]:
    return [remark.text for remark in pasted.remarks if remark.level != "note"]


def place(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Put the folder in the place of FOLDER."""
    placed: dict[str, Any] = json.loads(json.dumps(config).replace("FOLDER", str(folder)))
    return placed


def test_script_of_a_guide_reports_its_four_mistakes(read: ReadPasted, folder: Path) -> None:
    pasted = read(GUIDE_SCRIPT, is_script=True)
    assert list_levels(pasted) == [(1, "warning"), (9, "error"), (10, "error"), (11, "error")]
    hints = [remark.hint for remark in pasted.remarks if remark.level != "note"]
    assert hints == [
        "write #!/bin/bash",
        "did you mean --bind?",
        "write --env HF_HOME=VALUE",
        "write the value, or set it first: export PROJECT_SCRATCH=VALUE",
    ]
    assert pasted.config == {
        "nv": True,
        "binds": [f"{folder}/data:/data", "${PROJECT_SCRATCH}:/scratch"],
        "overlays": ["tmpfs"],
        "extra_flags": ["--fakeroot"],
        "image": f"{folder}/img",
        "env": {"DATA_DIR": "data"},
    }


def test_corrected_script_has_no_mistakes(read: ReadPasted, folder: Path) -> None:
    text = GUIDE_SCRIPT.replace("#!bin", "#!/bin").replace("--bnd", "--bind").replace("HF_HOME", "HF_HOME=/data/hf")
    pasted = read(text, is_script=True, environ={"PROJECT_SCRATCH": str(folder)})
    assert list_levels(pasted) == []
    assert parse_container_spec(pasted.config).env == {"HF_HOME": "/data/hf", "DATA_DIR": "data"}


@pytest.mark.parametrize(
    ("line", "config"),
    [
        pytest.param("apptainer exec --nv img python x.py", {"nv": True}, id="nv"),
        pytest.param("apptainer exec --nv=false --rocm img python", {"rocm": True}, id="boolean with a value"),
        pytest.param("apptainer exec -B /usr,data:/d:ro img sh", {"binds": ["/usr", "FOLDER/data:/d:ro"]}, id="binds"),
        pytest.param("apptainer exec -Bdata:/d img sh", {"binds": ["FOLDER/data:/d"]}, id="glued value"),
        pytest.param("apptainer exec -B=data:/d img sh", {"binds": ["FOLDER/data:/d"]}, id="glued value with ="),
        pytest.param(
            "apptainer exec --mount type=bind,src=FOLDER/data,dst=/d,ro img sh", {"binds": ["FOLDER/data:/d:ro"]}, id="mount"
        ),
        pytest.param(
            "apptainer exec --mount type=tmpfs,dst=/d img sh",
            {"extra_flags": ["--mount=type=tmpfs,dst=/d"]},
            id="another mount",
        ),
        pytest.param(
            "apptainer exec -B data/f:/d:image-src=/,ro img sh",
            {"extra_flags": ["--bind=data/f:/d:image-src=/,ro"]},
            id="bind of an image",
        ),
        pytest.param("apptainer exec --overlay data:ro img sh", {"overlays": ["FOLDER/data:ro"]}, id="overlay"),
        pytest.param("apptainer exec --env A=1,B=2 img sh", {"env": {"A": "1", "B": "2"}}, id="two variables"),
        pytest.param("apptainer exec --env A=1,2 img sh", {"env": {"A": "1,2"}}, id="a value with a comma"),
        pytest.param('apptainer exec --env "A=$HOME/x" img sh', {"env": {"A": "/home/ada/x"}}, id="a variable's value"),
        pytest.param("apptainer exec --env T=$T img sh", {"inherit_env": ["T"]}, id="the host's own, set at the start"),
        pytest.param("apptainer exec -e -C -H data img sh", {"isolation": "containall", "home": "FOLDER/data"}, id="letters"),
        pytest.param("apptainer exec -ec --no-home img sh", {"isolation": "contain", "home": "none"}, id="glued letters"),
        pytest.param(
            "apptainer exec --memory 4g --cpus 1.5 --pids-limit 200 img sh",
            {"resources": {"memory": "4G", "cpus": 1.5, "pids": 200}},
            id="limits",
        ),
        pytest.param("apptainer exec --net --network none img sh", {"network": "none"}, id="no network"),
        pytest.param("apptainer exec --pwd /x --pid --workdir /w img sh", {}, id="without meaning for a kernel"),
        pytest.param("apptainer exec -f --hostname box img sh", {"extra_flags": ["--fakeroot", "--hostname=box"]}, id="rest"),
        pytest.param("apptainer -d -c /c.conf exec --nv img sh", {"nv": True}, id="flags before the command"),
        pytest.param("cd data && apptainer exec ../img sh", {}, id="another folder"),
        pytest.param("D=data; apptainer exec -B $D:/d img sh", {"binds": ["FOLDER/data:/d"]}, id="variable of the same line"),
        pytest.param("A=1 apptainer exec img sh", {"env": {"A": "1"}}, id="variable for the command"),
        pytest.param("env A=1 timeout 9 apptainer exec img sh", {"env": {"A": "1"}}, id="behind other programs"),
        pytest.param("export A=1 PATH=/x; apptainer exec img sh", {"env": {"A": "1"}}, id="exported"),
        pytest.param("export A=1; A+=2; apptainer exec img sh", {"env": {"A": "12"}}, id="appended to"),
        pytest.param("export A=1; unset A; apptainer exec img sh", {}, id="exported no longer"),
        pytest.param("export A=1\napptainer exec --cleanenv img sh", {}, id="exported, and kept out"),
        pytest.param("export APPTAINERENV_A=1\napptainer exec -e img sh", {"env": {"A": "1"}}, id="for the container only"),
        pytest.param("APPTAINER_BIND=data:/d apptainer run img", {"binds": ["FOLDER/data:/d"]}, id="twin of a flag"),
        pytest.param(
            "apptainer instance start --nv img web\napptainer exec --env A=1 instance://web python -m ipykernel",
            {"nv": True, "env": {"A": "1"}, "command": ["python", "-m", "ipykernel", "-f", "{connection_file}"]},
            id="joined instance",
        ),
        pytest.param("apptainer shell --nv img", {"nv": True}, id="shell"),
        pytest.param("apptainer instance start --nv img web", {"nv": True}, id="instance"),
        pytest.param("if true; then /opt/bin/apptainer exec img sh | tee log; fi", {}, id="in a branch"),
        pytest.param('singularity_image=img\napptainer exec "${singularity_image}" sh', {}, id="image in a variable"),
        pytest.param("cat <<EOF >f\napptainer exec --nv other sh\nEOF\napptainer exec img sh", {}, id="here-document"),
        pytest.param("echo apptainer exec --nv img\napptainer exec img sh", {}, id="only printed"),
        pytest.param("apptainer exec --nv img sh\napptainer exec img python -m ipykernel", {"command": ["python", "-m", "ipykernel", "-f", "{connection_file}"]}, id="the one with a kernel"),
    ],
)  # fmt: skip
def test_line_becomes_fields(read: ReadPasted, folder: Path, line: str, config: dict[str, Any]) -> None:
    pasted = read(line.replace("FOLDER", str(folder)))
    assert list_mistakes(pasted) == []
    expected = {"image": f"{folder}/img", **config}
    assert pasted.config == place(expected, folder)
    parse_container_spec(pasted.config)


@pytest.mark.parametrize(
    ("command", "expected", "language"),
    [
        ("python -m ipykernel_launcher -f /run/user/1/jupyter/kernel-1f-2.json", IPYKERNEL, "python"),
        ("python -m ipykernel_launcher -f {connection_file}", IPYKERNEL, "python"),
        ("python -m ipykernel_launcher $@", IPYKERNEL, "python"),
        ("python -m ipykernel_launcher -f $1", IPYKERNEL, "python"),
        ("python -m ipykernel_launcher", IPYKERNEL, "python"),
        ("python -m bash_kernel -f k.json", ["python", "-m", "bash_kernel", "-f", "{connection_file}"], "bash"),
        (
            "R --slave -e 'IRkernel::main()' --args $1",
            ["R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"],
            "R",
        ),
        (
            "bash -lc 'conda activate x && python -m ipykernel -f $1'",
            ["bash", "-lc", "conda activate x && python -m ipykernel -f {connection_file}"],
            "python",
        ),
        ("/opt/x/bin/python3 train.py", ["/opt/x/bin/python3", *IPYKERNEL[1:]], None),
        ("python train.py --lr 1", None, None),
        ("jupyter lab --port 8889", None, None),
        ("bash", None, None),
    ],
)
def test_program_becomes_the_kernels_command(
    read: ReadPasted, command: str, expected: list[str] | None, language: str | None
) -> None:
    pasted = read(f"apptainer exec img {command}")
    assert list_mistakes(pasted) == []
    assert (pasted.config.get("command"), pasted.language) == (expected, language)


@pytest.mark.parametrize(
    ("line", "text", "hint"),
    [
        ("apptainer exec --nvv img sh", "no flag --nvv", "--nv?"),
        ("apptainer exec --bindd=/x img sh", "no flag --bindd", "--bind?"),
        ("apptainer exec --frobnicate img sh", "no flag --frobnicate", "leave it out"),
        ("apptainer exec -nv img sh", "-nv has one dash", "write --nv"),
        ("apptainer exec -bind data img sh", "-bind has one dash", "write --bind"),
        ("apptainer exec -N img sh", "no flag -N", "--net?"),
        ("apptainer exec --gpus all img sh", "of Docker", "write --nv"),
        ("apptainer exec -v data:/data img sh", "of Docker", "write --bind"),
        ("apptainer exec --env A img sh", "--env A has no value", "--env A=VALUE"),
        ("apptainer exec --env HOME img sh", "--env HOME has no value", "--inherit-env HOME"),
        ("export A=1; apptainer exec --env A img sh", "--env A has no value", "leave the flag out"),
        ("apptainer exec --env A b img sh", "a blank stands where = belongs", "--env A=b"),
        ("apptainer exec --env A=1,b,C=2 img sh", "--env b has no value", "--env b=VALUE"),
        ("apptainer exec --env A-B=1 img sh", "cannot be the name", "NAME=VALUE"),
        ("apptainer exec --env-file no.env img sh", "no.env", "correct the path"),
        ("apptainer exec -B /no/such:/d img sh", "does not exist: /no/such", "create it"),
        ("apptainer exec -B data:d img sh", "data:d is not SRC", ""),
        ("apptainer exec -B data img sh", "needs a destination", "data:/DEST"),
        ("apptainer exec -B data,,data:/e img sh", "empty path", "remove the comma"),
        ("apptainer exec --overlay no.img img sh", "the overlay does not exist", "create it"),
        ("apptainer exec --memory 4 img sh", "resources.memory: 4", "correct the limit"),
        ("apptainer exec --cpus many img sh", 'resources.cpus: "many"', "correct the limit"),
        ("apptainer exec -B $NONE:/d img sh", "NONE is not set here", "export NONE=VALUE"),
        ("apptainer exec -B $SLURM_TMPDIR:/d img sh", "only within a job", "within the job"),
        ("A=$NONE/x\napptainer exec -B $A:/d img sh", "line 1 sets it from ${NONE}", "write the value"),
        ("apptainer exec -B $(mktemp -d):/d img sh", "would have to be run", "write what it prints"),
        ("apptainer exec -B $1:/d img sh", "argument of the script", "write its value"),
        ("apptainer exec -B ${A%/*}:/d img sh", "worked out by a shell", "write the value"),
        ("apptainer exec img --nv python x.py", "behind the image", "in front of the image"),
        ("apptainer exec docker://a/b:1 sh", "docker://a/b:1 is not on this machine", "apptainer pull b_1.sif"),
        ("apptainer exec no.sif sh", "no.sif", ""),
        ("apptainer exec --nv", "names no image", ".sif"),
        ("apptainer exec instance://web sh", "running instance", "image that it was started from"),
        ("apptainer exec -B data: /d img.sif sh", "/d stands where the image is expected", "img.sif"),
        ("apptainer exce img sh", "no command apptainer exce", "exec?"),
        ("apptainer exec --app web img sh", "--app web", "--command"),
        ("apptainer exec img Rscript x.R", "Rscript is no kernel", "kernel discover"),
        ("apptainer exec img bash -c 'source x; python y'", "not carried over", "--command"),
        ("apptainer exec --nv \\ \n  img sh", "blank behind the backslash", "remove the blank"),
        ("apptainer exec \\ # all\n  img sh", "comment behind the backslash", "move the comment"),
        ("apptainer exec \\\n  # all\n  img sh", "a comment ends the command", "move the comment"),
        ("apptainer exec --nv\n  --rocm \\\n img sh", "no backslash at the end", "add \\"),
        ("apptainer exec –nv img sh", "U+2013", "plain"),
        ("apptainer exec —nv img sh", "U+2014", "plain"),
        ("apptainer exec --env “A=1” img sh", "U+201C", "plain"),
        ("apptainer exec --nv\u00a0--rocm img sh", "U+00A0", "plain"),
        ("apptainer exec 'img sh", "never closed", "close it"),
    ],
)
def test_mistake_is_found_with_the_way_out(read: ReadPasted, line: str, text: str, hint: str) -> None:
    if line.endswith("'img sh"):
        with pytest.raises(SpecError):
            read(line)
        return
    found = [remark for remark in read(line).remarks if remark.level == "error" and text in remark.text]
    assert [hint in remark.hint for remark in found] == [True], read(line).remarks


@pytest.mark.parametrize(
    ("line", "config"),
    [
        ("apptainer exec -nv img sh", {"nv": True}),
        ("apptainer exec --bnd data:/d img sh", {"binds": ["FOLDER/data:/d"]}),
        ("apptainer exec -v data:/data img sh", {"binds": ["FOLDER/data:/data"]}),
        ("apptainer exec --gpus all img sh", {"nv": True}),
        ("apptainer exec --env A b img sh", {"env": {"A": "b"}}),
        ("apptainer exec img --nv python", {"nv": True}),
        ("apptainer exec --nv \\ \n  -B data img sh", {"nv": True, "binds": ["FOLDER/data"]}),
        ("apptainer exec –nv “img” sh", {"nv": True}),
        ("apptainer exec -B $SLURM_TMPDIR:/d img sh", {"binds": ["${SLURM_TMPDIR}:/d"]}),
    ],
)
def test_what_was_meant_is_kept_for_those_who_insist(
    read: ReadPasted, folder: Path, line: str, config: dict[str, Any]
) -> None:
    pasted = read(line)
    assert pasted.remarks.has_errors
    expected = {"image": f"{folder}/img", **config}
    assert pasted.config == place(expected, folder)


@pytest.mark.parametrize(
    ("script", "line", "text"),
    [
        pytest.param("\ufeff#!/bin/bash\n", 1, "byte order mark", id="BOM"),
        pytest.param("#!/bin/bash\r\n#SBATCH -n 1\r\n", 1, "2 lines end as on Windows", id="CR LF"),
        pytest.param("#SBATCH -n 1\n", 1, "which shell", id="none"),
        pytest.param("#!bin/bash\n", 1, "not a #! line", id="relative"),
        pytest.param("# !/bin/bash\n", 1, "not a #! line", id="blank in it"),
        pytest.param("#/bin/bash\n", 1, "not a #! line", id="no !"),
        pytest.param("!#/bin/bash\n", 1, "not a #! line", id="swapped"),
        pytest.param("  #!/bin/bash\n", 1, "blanks before", id="indented"),
        pytest.param("\n\n#!/bin/bash\n", 1, "is line 3", id="not the first"),
        pytest.param("#!/bin/bsh\n", 1, "bsh, which is not a shell", id="misspelt"),
        pytest.param("#!/usr/bin/env python\n", 1, "python, which is not a shell", id="another language"),
        pytest.param("#!/no/such/bash\n", 1, "does not exist here", id="not there"),
        pytest.param("#!/bin/bash\ncd data/..\n#SBATCH -n 1\n", 3, "after a command", id="late option"),
        pytest.param("#!/bin/bash\n# SBATCH -n 1\n", 2, "a comment", id="misspelt option"),
    ],
)
def test_mistake_of_the_file_is_a_warning(read: ReadPasted, script: str, line: int, text: str) -> None:
    pasted = read(script + "apptainer exec img sh\n", is_script=True)
    found = [remark for remark in pasted.remarks if remark.level != "note"]
    assert [(remark.level, remark.line, text in remark.text) for remark in found] == [("warning", line, True)], found


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("singularity exec img sh", "called apptainer today"),
        ("SINGULARITYENV_A=1 apptainer exec img sh", "old name"),
        ("sudo apptainer exec img sh", "sudo"),
        ("apptainer exec --net img sh", "needs root"),
        ("apptainer exec --rm img sh", "Docker"),
        ("export A=$NONE; apptainer exec img sh", "A is left out"),
        ("apptainer exec img ./a.out", "is no kernel"),
    ],
)
def test_what_does_not_touch_the_kernel_is_a_warning(read: ReadPasted, line: str, text: str) -> None:
    pasted = read(line)
    assert [(remark.level, text in remark.text) for remark in pasted.remarks if remark.level != "note"] == [
        ("warning", True)
    ]


@pytest.mark.parametrize(
    "text", ["", "python x.py", "apptainer pull a.sif docker://a", "docker run a b", "apptainer", "#"]
)
def test_text_without_a_container_is_refused(read: ReadPasted, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(text)
    assert "apptainer exec" in str(caught.value.hint)


def test_open_quote_elsewhere_does_not_hide_the_command(read: ReadPasted, folder: Path) -> None:
    pasted = read("echo don't\n" + "true\n" * 400 + "apptainer exec --nv img sh\n")
    assert list_mistakes(pasted) == []
    assert pasted.config == {"nv": True, "image": f"{folder}/img"}


def test_variables_of_a_file_are_read(read: ReadPasted, folder: Path) -> None:
    (folder / "my.env").write_text("# mine\nA=1\nexport B='x y'\n")
    assert read("apptainer exec --env-file my.env img sh").config["env"] == {"A": "1", "B": "x y"}


def test_dollar_signs_in_paths_survive(read: ReadPasted, folder: Path) -> None:
    (folder / "a$HOME").mkdir()
    pasted = read("apptainer exec -B 'a$HOME:/d' img sh")
    assert list_mistakes(pasted) == []
    assert pasted.config["binds"] == [f"{folder}/a$$HOME:/d"]


@pytest.mark.parametrize(
    "flags",
    [
        ("--nvv",),
        ("-nv",),
        ("-bind", "/usr"),
        ("--gpus", "all"),
        ("-v", "/usr:/data"),
        ("--env", "A"),
        ("--env", "A=1,b,C=2"),
        ("-B", "/no/such/folder:/d"),
        ("-B", "/usr:d"),
        ("-B", "usr"),
        ("--overlay", "/no/such.img"),
    ],
    ids=" ".join,
)
def test_engine_refuses_what_is_called_a_mistake(
    read: ReadPasted, engine: EngineInfo, starter_image: Path, flags: tuple[str, ...]
) -> None:
    argv = [engine.path, "exec", "--userns", *flags, str(starter_image), "true"]
    answer = subprocess.run(
        argv, env=build_engine_environment(os.environ), cwd="/", capture_output=True, text=True, check=False, timeout=60
    )
    assert answer.returncode, argv
    assert read(f"apptainer exec {' '.join(flags)} img true").remarks.has_errors
