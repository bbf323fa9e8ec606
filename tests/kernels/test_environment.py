"""Which variables a kernel sees, and why: the allow-list, wishes, and what is never handed on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from jupyter_apptainer.kernels.environment import ALLOWED, NEVER, RESERVED, EnvEntry, plan_environment


def plan(
    host: Mapping[str, str] | None = None,
    *,
    kernelspec_env: Mapping[str, str] | None = None,
    spec_env: Mapping[str, str] | None = None,
    inherit: Sequence[str] = (),
    own: Sequence[EnvEntry] = (),
) -> dict[str, EnvEntry]:
    entries = plan_environment(
        host=host or {}, kernelspec_env=kernelspec_env or {}, spec_env=spec_env or {}, inherit=inherit, own=own
    )
    found = {entry.name: entry for entry in entries}
    assert len(found) == len(entries), "each name once"
    assert all(entry.why for entry in entries)
    return found


@pytest.mark.parametrize(
    "name",
    [
        "LANG",
        "LC_ALL",
        "LC_TIME",
        "TZ",
        "TERM",
        "USER",
        "CUDA_VISIBLE_DEVICES",
        "SLURM_JOB_ID",
        "OMP_NUM_THREADS",
        "https_proxy",
        "NO_PROXY",
        "JPY_SESSION_NAME",
        "KERNEL_ID",
    ],
)
def test_usual_variables_arrive(name: str) -> None:
    assert plan({name: "x"})[name].value == "x"


@pytest.mark.parametrize(
    "name",
    [
        "PYTHONPATH",
        "PYTHONHOME",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "PATH",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "XDG_DATA_HOME",
        "JUPYTERHUB_API_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "HF_TOKEN",
        "SSH_AUTH_SOCK",
        "lang",
        "LANGUAGE_SERVER",
        "TMPDIR",
    ],
)
def test_others_do_not(name: str) -> None:
    assert plan({name: "x"}) == {}


@pytest.mark.parametrize("name", ["SLURM_JWT", "KERNEL_TOKEN", "SLURM_SOME_PASSWORD", "KERNEL_LAUNCH_PASSWORD"])
def test_credentials_do_not_though_a_pattern_has_them(name: str) -> None:
    assert plan({name: "x"}) == {}


@pytest.mark.parametrize(
    ("inherit", "expected"),
    [
        pytest.param(["HF_TOKEN"], {"HF_TOKEN"}, id="name"),
        pytest.param(["HF_*"], {"HF_TOKEN", "HF_HOME"}, id="prefix"),
        pytest.param(["hf_*"], set(), id="case-counts"),
        pytest.param(["HF"], set(), id="no-pattern-no-prefix"),
        pytest.param(["SLURM_JWT"], {"SLURM_JWT"}, id="a-credential-by-name"),
        pytest.param(["*"], {"HF_TOKEN", "HF_HOME", "SLURM_JWT", "PYTHONPATH"}, id="all"),
    ],
)
def test_a_wish_takes_more_over(inherit: list[str], expected: set[str]) -> None:
    host = dict.fromkeys(["HF_TOKEN", "HF_HOME", "SLURM_JWT", "PYTHONPATH", "HOME", "APPTAINER_BIND"], "x")
    found = plan(host, inherit=inherit)
    assert set(found) == expected
    assert all(entry.why == f"`inherit_env` has {inherit[0]}" for entry in found.values())


@pytest.mark.parametrize("name", ["HOME", "APPTAINER_NAME", "APPTAINERENV_X", "SINGULARITY_BIND", "SINGULARITYENV_X"])
def test_the_engines_own_are_not_inherited_whatever_the_wish(name: str) -> None:
    assert plan({name: "x"}, inherit=[name, "*"]) == {}


@pytest.mark.parametrize("name", ["BASH_FUNC_x%%", "A-B", "1A", ""])
def test_what_no_shell_can_export_is_left_out(name: str) -> None:
    assert plan({name: "x"}, inherit=["*"]) == {}


def test_precedence_rises_from_the_host_to_the_config() -> None:
    own = [EnvEntry("A", "own", "ours"), EnvEntry("B", "own", "ours"), EnvEntry("C", "own", "ours")]
    host = dict.fromkeys("ABCD", "host")
    found = plan(
        host, inherit=["A", "B", "C", "D"], own=own, kernelspec_env={"A": "spec", "B": "spec"}, spec_env={"A": "config"}
    )
    assert {name: entry.value for name, entry in found.items()} == {"A": "config", "B": "spec", "C": "own", "D": "host"}
    assert [found[name].why for name in "ABCD"] == [
        "`env` of the container config",
        "`env` of kernel.json",
        "ours",
        "`inherit_env` has D",
    ]


def test_values_are_not_looked_into() -> None:
    value = "a,b\n'\"$(id)"
    assert plan({"LANG": value}, spec_env={"X": value}) == {
        "LANG": EnvEntry("LANG", value, "language of the host"),
        "X": EnvEntry("X", value, "`env` of the container config"),
    }


def test_the_order_does_not_depend_on_the_hosts() -> None:
    names = ["TZ", "LANG", "USER"]
    assert list(plan(dict.fromkeys(names, "x"))) == list(plan(dict.fromkeys(reversed(names), "x"))) == sorted(names)


def test_the_tables_have_no_pattern_twice() -> None:
    for patterns in ([pattern for pattern, _ in ALLOWED], NEVER, RESERVED):
        assert len(set(patterns)) == len(patterns)
