"""What a kernel sees of the host: variables, home, /tmp, working directory, odd paths."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import RunningKernel, StartKernel

pytestmark = pytest.mark.modes

LEAKS = {
    "PYTHONPATH": "/nowhere/host/packages",
    "VIRTUAL_ENV": "/nowhere/venv",
    "CONDA_PREFIX": "/nowhere/conda",
    "JUPYTERHUB_API_TOKEN": "hub-secret",
    "AWS_SECRET_ACCESS_KEY": "cloud-secret",
    "SLURM_JWT": "slurm-secret",
    "LD_PRELOAD": "",
    "SINGULARITYENV_LEAK": "leak",
    "APPTAINERENV_LEAK": "leak",
}
CROSSING = {"SLURM_JOB_ID": "17", "CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "3", "TZ": "Asia/Seoul"}
ODD_VALUES = {
    "comma": "a,b,c",
    "quotes": 'it\'s "quoted"',
    "substitution": "$(touch /tmp/evaluated) `touch /tmp/evaluated` $HOME ${HOME}",
    "newlines": "first-of-four\ntwo\n\nfour",
    "backslashes": r"\n \\ \$HOME",
    "unicode": "é 한국어 ✓",
    "equals": "a=b=c",
    "empty": "",
    "spaces": "  leading and trailing  ",
    "semicolon": "a; exit 3 # & | > <",
}


def test_nothing_leaks_and_what_is_needed_crosses(start_kernel: StartKernel) -> None:
    kernel = start_kernel(env=os.environ | LEAKS | CROSSING)
    seen = kernel.value("dict(__import__('os').environ)")
    assert {name: seen[name] for name in LEAKS if name in seen} == {}
    assert "LEAK" not in seen
    assert {name: seen.get(name) for name in CROSSING} == CROSSING
    assert "secret" not in str(seen)
    assert kernel.value("[p for p in __import__('sys').path if 'nowhere' in p or '.local' in p]") == []


def test_values_arrive_unchanged_and_in_no_process_list(start_kernel: StartKernel) -> None:
    values = {f"ODD_{name}": value for name, value in ODD_VALUES.items()}
    kernel = start_kernel({"env": values})
    assert kernel.value(f"{{n: v for n, v in __import__('os').environ.items() if n in {list(values)!r}}}") == values
    assert kernel.value("__import__('os').path.exists('/tmp/evaluated')") is False
    listed = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert [name for name, value in values.items() if value.strip() and value.split("\n")[0] in listed] == []


def test_precedence_and_inheritance(start_kernel: StartKernel) -> None:
    host = os.environ | {"MY_ONE": "host", "MY_TWO": "host", "OTHER": "host"}
    kernel = start_kernel({"inherit_env": ["MY_*"], "env": {"MY_TWO": "config"}}, env=host)
    assert kernel.value("[__import__('os').environ.get(n) for n in ('MY_ONE', 'MY_TWO', 'OTHER')]") == [
        "host",
        "config",
        None,
    ]


def test_ambient_engine_variables_do_not_bend_the_start(start_kernel: StartKernel, tmp_path: Path) -> None:
    bending = {
        "APPTAINER_BIND": "/nowhere/at/all:/mnt",
        "APPTAINER_CONTAINALL": "1",
        "SINGULARITY_OVERLAY": "/nowhere.img",
        "APPTAINER_NO_HOME": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bending.items():
            patch.setenv(name, value)
        kernel = start_kernel()
        assert kernel.value("__import__('os').getcwd()") == str(tmp_path)


def test_tmp_is_private_and_on_disk(start_kernel: StartKernel) -> None:
    one, two = start_kernel(), start_kernel()
    one.run("open('/tmp/mine', 'w').write('x'); open('/var/tmp/mine', 'w').write('x')")
    assert two.value("[__import__('os').path.exists(p) for p in ('/tmp/mine', '/var/tmp/mine')]") == [False, False]
    assert not Path("/tmp/mine").exists()
    assert one.value("__import__('os').statvfs('/tmp').f_blocks * __import__('os').statvfs('/tmp').f_frsize > 10**9")


def test_the_kernels_folder_is_ours_alone_and_temporary_files_stay_in_the_container(kernel: RunningKernel) -> None:
    plan = kernel.provisioner.kernel.plan  # type: ignore[union-attr]  # it runs
    for folder in (plan.private_dir, plan.scratch_dir):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(plan.connection_file).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(kernel.manager.connection_file).st_mode) == 0o600
    # That the host's stays clean is seen by `leaves_no_trace`.
    assert kernel.run("import tempfile; tempfile.mkstemp()").status == "ok"
    assert kernel.value("__import__('tempfile').gettempdir()") == "/tmp"


@pytest.mark.parametrize("home", ["host", "none", "DIR"])
def test_home(start_kernel: StartKernel, tmp_path: Path, home: str) -> None:
    own = tmp_path / "own, home: x"
    own.mkdir()
    (own / "marker").touch()
    kernel = start_kernel({"home": str(own) if home == "DIR" else home})
    real = os.path.expanduser("~")
    assert kernel.value("__import__('os').environ['HOME']") == real
    seen = set(kernel.value("__import__('os').listdir(__import__('os').path.expanduser('~'))"))
    if home == "host":
        assert set(os.listdir(real)) <= seen
    elif home == "DIR":
        assert "marker" in seen
        kernel.run("open(__import__('os').path.expanduser('~/written'), 'w').write('x')")
        assert (own / "written").exists()
    else:
        assert not seen & set(os.listdir(real)) - {".ipython", ".cache", ".config", ".local"}


@pytest.mark.parametrize("isolation", ["contain", "containall"])
def test_isolation(start_kernel: StartKernel, tmp_path: Path, isolation: str) -> None:
    (tmp_path / "data.txt").write_text("here")
    kernel = start_kernel({"isolation": isolation})
    assert kernel.value("open('data.txt').read()") == "here"
    assert kernel.value(f"__import__('os').path.exists({os.path.expanduser('~') + '/.bashrc'!r})") is False


def test_no_network(start_kernel: StartKernel) -> None:
    kernel = start_kernel({"network": "none"})
    assert kernel.value("sorted(i[1] for i in __import__('socket').if_nameindex())") == ["lo"]


def test_tmpfs_overlay_makes_the_image_writable_for_a_while(start_kernel: StartKernel) -> None:
    kernel = start_kernel({"overlays": ["tmpfs"]})
    where = "/tmp-layer-test" if os.geteuid() == 0 else "/var/tmp/x"
    assert kernel.run(f"open({where!r}, 'w').write('x')").status == "ok"


@pytest.mark.parametrize(
    ("name", "image_name"),
    [
        pytest.param("plain", "ünïcödé.sif", id="plain"),
        pytest.param("with space", "plain.sif", id="space"),
        pytest.param("comma,in,name", "with space.sif", id="comma"),
        pytest.param("colon:in:name", "plain.sif", id="colon"),
        pytest.param("quote\"s and 'quotes'", "plain.sif", id="quotes"),
        pytest.param("ünïcödé 한국어", 'comma,colon:quote".sif', id="unicode"),
        pytest.param("dollar$HOME $(id)", "plain.sif", id="dollar"),
        pytest.param("x" * 200, "plain.sif", id="long"),
    ],
)
def test_working_directories_and_images_with_odd_names(
    start_kernel: StartKernel, starter_image: Path, tmp_path: Path, name: str, image_name: str
) -> None:
    folder, image = tmp_path / name, tmp_path / image_name
    folder.mkdir()
    (folder / "data.txt").write_text("here")
    image.symlink_to(starter_image)
    kernel = start_kernel({"image": str(image)}, cwd=folder)
    assert kernel.value("__import__('os').getcwd()") == str(folder)
    assert kernel.value("open('data.txt').read()") == "here"
    kernel.run("open('out.txt', 'w').write('there')")
    assert (folder / "out.txt").read_text() == "there"
    assert (folder / "out.txt").stat().st_uid == os.geteuid()
    assert kernel.provisioner.resolve_path("data.txt") == str(folder / "data.txt")


def test_binds_by_path_and_mode(start_kernel: StartKernel, tmp_path: Path) -> None:
    source = tmp_path / "a, b: c"
    source.mkdir()
    (source / "f").write_text("x")
    escaped = str(source).replace(":", "\\:")
    kernel = start_kernel({"binds": [f"{escaped}:/data:ro", f"{escaped}:/mnt/rw"]})
    assert kernel.value("open('/data/f').read()") == "x"
    assert kernel.run("open('/data/g', 'w')").ename == "OSError"
    kernel.run("open('/mnt/rw/g', 'w').write('y')")
    assert (source / "g").read_text() == "y"
    assert kernel.provisioner.resolve_path("/data/f") == str(source / "f")
    assert kernel.provisioner.resolve_path("/mnt/rw/g") == str(source / "g")
    assert kernel.provisioner.resolve_path("/usr/bin/env") is None


def test_a_home_other_than_that_of_passwd(start_kernel: StartKernel, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "marker").touch()
    kernel = start_kernel(env=os.environ | {"HOME": str(tmp_path / "home")})
    assert kernel.value("__import__('os').path.expanduser('~')") == str(tmp_path / "home")
    assert "marker" in kernel.value("__import__('os').listdir(__import__('os').path.expanduser('~'))")
