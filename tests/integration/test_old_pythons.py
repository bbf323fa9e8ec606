"""Images of another time: Python 2.7 with ipykernel 4, Debian's Python 3.9 with one that is lent, and with its own ipykernel 6;
what was written for their packages runs in them, and no longer with today's.

The image is made of Debian 11's packages, unpacked, and of wheels from PyPI. That takes half a minute, so one run does it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager
from nbclient.exceptions import CellExecutionError

from jupyter_apptainer.engine.apt import PrivateApt, build_sources, find_mirror
from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.options import Bind, ContainerOptions, build_exec, build_image_build
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.engine.step import run_step
from jupyter_apptainer.images.host_settings import MOUNT_POINT, load_host_settings, write_build_settings
from jupyter_apptainer.images.probe import LENT_DIR
from jupyter_apptainer.places import Places
from tests.integration.conftest import SLEEP, TIMEOUT_S, MakeKernelspec, RunningKernel, StartKernel, remove_overlay
from tests.integration.test_clients import build_notebook, execute

pytestmark = [pytest.mark.root, pytest.mark.slow]

SUITE = "bullseye"
# All that Python 2.7, 3.9 and a shell need; this release does not change any more.
PACKAGES = """
coreutils dash libacl1 libattr1 libbz2-1.0 libc-bin libc6 libcrypt1 libdb5.3 libexpat1 libffi7 libgcc-s1 libgmp10 liblzma5 libmpdec3
libncursesw6 libpcre2-8-0 libpython2.7-minimal libpython2.7-stdlib libpython3-stdlib libpython3.9-minimal libpython3.9-stdlib
libreadline8 libselinux1 libsqlite3-0 libssl1.1 libstdc++6 libtinfo6 libuuid1 python-pip-whl python2.7 python2.7-minimal python3
python3-distutils python3-lib2to3 python3-minimal python3.9 python3.9-minimal zlib1g
"""
PACKAGES_27 = "/usr/local/lib/python2.7/dist-packages"
# The years are those of an article of 2017, whose authors asked for any Matplotlib, and of a notebook of 2021.
PACKAGES_2021 = "/opt/2021"
# The engine's own /tmp is a small one in memory.
SCRATCH = "/opt/scratch"
INSTALL = f"""
. {MOUNT_POINT}/settings.sh
cd /usr/share/python-wheels
for wheel in pip-*.whl setuptools-*.whl pkg_resources-*.whl wheel-*.whl; do python2.7 -m zipfile -e $wheel {SCRATCH}/pip; done
export HOME={SCRATCH} TMPDIR={SCRATCH} PYTHONPATH={SCRATCH}/pip PIP_NO_CACHE_DIR=1
python2.7 -m pip install -q --target {PACKAGES_27} --prefer-binary 'ipykernel<5' matplotlib functools32 'numpy==1.16.6' pip
python3 -m pip install -q --target {PACKAGES_2021} --prefer-binary 'numpy==1.22.4' 'pandas==1.4.4' 'matplotlib==3.5.3'
"""
COMMAND_27 = ["python2.7", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
COMMAND_39 = ["python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"]


@pytest.fixture(scope="module")
def old_image(engine: EngineInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Debian 11's Python 2.7 and 3.9; the first has ipykernel 4."""
    folder = tmp_path_factory.mktemp("old")
    root, image = folder / "root", folder / "image"
    root.mkdir()
    mirror = find_mirror()
    if mirror.distribution != "debian":
        pytest.skip("only a Debian mirror has Debian 11")
    apt = PrivateApt(folder / "apt", build_sources(mirror, (SUITE,)))
    apt.update()
    for archive in apt.download(PACKAGES.split()):
        run_step(("dpkg-deb", "-x", str(archive), str(root)), f"unpack {archive.name}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    Runner().run(
        build_image_build(engine, str(image), str(root), build_engine_environment(os.environ), is_sandbox=True)
    )
    _install_ipykernel(engine, image, folder)
    return image


def _install_ipykernel(engine: EngineInfo, image: Path, folder: Path) -> None:
    settings = folder / "settings"
    settings.mkdir()
    packages = [Path(f"{image}{path}") for path in (PACKAGES_27, PACKAGES_2021, SCRATCH)]
    for path in packages:
        path.mkdir(parents=True, exist_ok=True)
    given = write_build_settings(load_host_settings(os.environ), settings, {})
    binds = [Bind(*words) for words in (bind.split(":") for bind in given)]  # type: ignore[arg-type]  # ends in ro, or not at all
    places = [Bind(str(path), f"/{path.relative_to(image)}") for path in packages]
    options = ContainerOptions(binds=(*places, *binds), home="none", isolation="contain")
    env = build_engine_environment(os.environ)
    Runner().run(build_exec(engine, str(image), ("sh", "-ec", INSTALL), env, options=options, cwd="/", timeout_s=240))
    shutil.rmtree(packages[-1])


@pytest.fixture
def python_27(old_image: Path, start_kernel: StartKernel) -> RunningKernel:
    return start_kernel({"image": str(old_image), "command": COMMAND_27})


def test_python_27_runs_cells_asks_for_input_and_is_restarted(python_27: RunningKernel) -> None:
    kernel = python_27
    assert kernel.run("print 1/2").text == "0\n"
    assert kernel.value("__import__('ipykernel').__version__").startswith("4.")
    assert kernel.run("import os\nos.getsid(0) == os.getpid()").data["text/plain"] == "True"
    asked = kernel.client.execute("print raw_input('name? ')", allow_stdin=True)
    assert kernel.client.get_stdin_msg(timeout=TIMEOUT_S)["content"]["prompt"] == "name? "
    kernel.client.input("Ada")
    assert kernel.finish(asked).text == "Ada\n"
    instance = kernel.instance
    kernel.run("kept = 1")
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=TIMEOUT_S)
    assert kernel.instance == instance
    assert kernel.run("kept").ename == "NameError"


def test_python_27_is_interrupted_once_and_shut_down_cleanly(python_27: RunningKernel, tmp_path: Path) -> None:
    kernel = python_27
    kernel.run(f"import atexit\natexit.register(lambda: open('{tmp_path}/ended', 'w').close())")
    cell = kernel.begin(
        "import subprocess, sys, time\nhits = 0\n"
        "try:\n    print 'begun'; sys.stdout.flush(); subprocess.call(['sleep', '60'])\n"
        "except KeyboardInterrupt:\n    hits += 1\n"
        "    try:\n        time.sleep(0.4)\n    except KeyboardInterrupt:\n        hits += 1\n"
        "print 'hits', hits"
    )
    kernel.wait_text(cell, "begun")
    time.sleep(0.3)  # into the child's wait
    kernel.manager.interrupt_kernel()
    assert kernel.finish(cell).text.splitlines()[-1] == "hits 1"
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel()
    assert (tmp_path / "ended").exists()


def test_debians_own_python_39_gets_an_ipykernel_lent(
    old_image: Path, start_kernel: StartKernel, places: Places, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "traitlets")
    config = {"image": str(old_image), "command": COMMAND_39}
    kernel = start_kernel(config)
    assert "Fetching an ipykernel for Python 3.9" in caplog.text
    assert kernel.value("list(__import__('sys').version_info[:2])") == [3, 9]
    assert kernel.value("__import__('ipykernel').__file__").startswith(LENT_DIR)
    assert kernel.run("1 / 0").ename == "ZeroDivisionError"
    kernel.end()

    # The last ipykernel for this Python is a 6. As one of the image's own it is used as it is, and nothing is lent.
    (bundle,) = places.lent.glob("cp39-glibc2.31-*/packages")
    kernel = start_kernel({**config, "binds": [f"{bundle}:/usr/local/lib/python3.9/dist-packages:ro"]})
    assert kernel.value("__import__('ipykernel').__version__").startswith("6.")
    assert not kernel.value("__import__('ipykernel').__file__").startswith(LENT_DIR)
    cell = kernel.begin("print('begun')\n" + SLEEP)
    kernel.wait_text(cell, "begun")
    kernel.manager.interrupt_kernel()
    assert kernel.finish(cell).ename == "KeyboardInterrupt"


def test_an_ipykernel_that_cannot_encrypt_is_refused_where_that_is_required(
    old_image: Path, make_kernelspec: MakeKernelspec, start_kernel: StartKernel
) -> None:
    name = make_kernelspec({"image": str(old_image), "command": COMMAND_27}, curve=True)
    with pytest.raises(RuntimeError, match="the image's ipykernel cannot encrypt"):
        start_kernel(name=name, manager=KernelManager(transport_encryption="required"))


# --- one notebook, two times

# `axisbg` went with Matplotlib 2.2.
FIGURE_OF_2017 = """
import warnings; warnings.simplefilter('ignore')
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
plt.figure().add_subplot(111, axisbg='white').plot([1, 2])
plt.savefig('figure.pdf')
print matplotlib.__version__
"""
OLD_MATPLOTLIB = "matplotlib-2.0.2-cp27-cp27mu-manylinux1_x86_64.whl"
NOTEBOOK_OF_2021 = (
    "import matplotlib; matplotlib.use('Agg')\nimport matplotlib.pyplot as plt, numpy as np, pandas as pd",
    "years = pd.DataFrame({'year': [2019, 2020]}).append({'year': 2021}, ignore_index=True)\nlen(years)",
    "[name for name, column in pd.DataFrame({'year': [1]}).iteritems()]",
    "np.array([1, 0], dtype=np.float)",
    "plt.figure().gca(projection='3d');",
)


def test_a_figure_of_2017_needs_the_matplotlib_of_its_time(
    old_image: Path, start_kernel: StartKernel, places: Places, tmp_path: Path
) -> None:
    wanted = ["--python-version", "27", "--implementation", "cp", "--abi", "cp27mu", "--platform", "manylinux1_x86_64"]
    fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", *wanted]
    subprocess.run([*fetch, "matplotlib==2.0.2"], cwd=tmp_path, check=True)
    config = {"image": str(old_image), "command": COMMAND_27, "overlays": ["auto:256"]}
    kernel = start_kernel(config)
    assert kernel.run(FIGURE_OF_2017).ename == "AttributeError"
    said = kernel.run(f"!python2.7 -m pip install -q --no-index --no-deps {OLD_MATPLOTLIB}").text
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=TIMEOUT_S)
    reply = kernel.run(FIGURE_OF_2017)
    assert (reply.text, reply.evalue) == ("2.0.2\n", ""), said
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    name = kernel.manager.kernel_name
    kernel.end()
    again = start_kernel(name=name)
    assert again.run(FIGURE_OF_2017).text == "2.0.2\n"
    again.end()
    remove_overlay(name, places)
    bare = start_kernel({"image": str(old_image), "command": COMMAND_27})
    assert bare.run(FIGURE_OF_2017).ename == "AttributeError", "the image itself is as it was"


def test_a_notebook_of_2021_runs_when_only_its_kernel_is_of_that_time(
    old_image: Path, starter_image: Path, make_kernelspec: MakeKernelspec, tmp_path: Path
) -> None:
    (tmp_path / "requirements.txt").write_text("pandas\nmatplotlib\n")
    build = [sys.executable, "-m", "jupyter_apptainer.cli.main", "image", "build", "today.sif", "--host-settings"]
    options = ["--requirements", "requirements.txt", "--base", str(starter_image)]
    subprocess.run([*build, *options], cwd=tmp_path, check=True)
    today = make_kernelspec({"image": str(tmp_path / "today.sif")})
    then = make_kernelspec({"image": str(old_image), "command": COMMAND_39, "env": {"PYTHONPATH": PACKAGES_2021}})
    for cell in NOTEBOOK_OF_2021[1:]:
        with pytest.raises(CellExecutionError):
            execute(build_notebook(NOTEBOOK_OF_2021[0], cell), today, tmp_path)
    execute(build_notebook(*NOTEBOOK_OF_2021), then, tmp_path)
