"""Which settings hold, and which are refused: kernel.json, notebook, forced values, policies."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from traitlets.config import Config

import jupyter_apptainer.policy as policy_module
from jupyter_apptainer.config import ApptainerConfig
from jupyter_apptainer.errors import ApptainerError, ImageMismatch, ImageNotFound, PolicyError, SpecError
from jupyter_apptainer.kernels import schemas
from jupyter_apptainer.kernels.kernelspecs import add_kernelspec
from jupyter_apptainer.kernels.settle import Settled, settle_spec
from jupyter_apptainer.kernels.spec import BindWish, ResourcesWish, parse_container_spec
from jupyter_apptainer.places import Places
from tests.images.test_digest import write_image


@dataclass
class Desk:
    """A reader's folders: images, a project with a notebook, and two kernels."""

    root: Path
    places: Places
    digests: dict[str, str]

    def settle(
        self, metadata: object = None, config: Mapping[str, object] | None = None, **settings: Mapping[str, Any]
    ) -> Settled:
        notebook = self.root / "project/book.ipynb"
        notebook.write_text(json.dumps({"metadata": {} if metadata is None else {"apptainer": metadata}}))
        return settle_spec(
            {"image": str(self.root / "images/own.sif"), **(config or {})},
            base_dir=str(self.root / "kernel"),
            environ={"HOME": str(self.root / "home"), "DATA": str(self.root / "data")},
            settings=ApptainerConfig(config=Config(settings)),
            places=self.places,
            notebook=str(notebook),
        )


@pytest.fixture
def desk(tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setattr(policy_module, "SYSTEM_FOLDERS", ())
    for name in ("images", "more", "project", "data/set", "home", "kernel"):
        (tmp_path / name).mkdir(parents=True)
    digests = {
        name: write_image(tmp_path / name, name.encode())
        for name in ("images/own.sif", "images/torch.sif", "more/extra.sif", "project/evil.sif", "project/torch.sif")
    }
    add_kernelspec("torch", parse_container_spec({"image": str(tmp_path / "images/torch.sif")}))
    return Desk(tmp_path, places, digests)


# --- what is honoured


def test_each_value_says_where_it_comes_from(desk: Desk) -> None:
    settled = desk.settle(
        {"image": "torch.sif", "nv": True, "env": {"OMP_NUM_THREADS": "2"}, "binds": ["set"]},
        {"env": {"OMP_NUM_THREADS": "1", "API_TOKEN": "hidden"}, "binds": ["/usr"], "nv": False},
        ApptainerConfig={"named_binds": {"set": "$DATA/set:/data:ro"}, "force": {"isolation": "contain", "nv": False}},
    )
    book = f"notebook {desk.root}/project/book.ipynb"
    assert {(setting.name, setting.value, setting.origin) for setting in settled.settings} == {
        ("image", f"{desk.root}/images/torch.sif", book),
        ("nv", "false", "server"),
        ("binds", "/usr", "kernel.json"),
        ("binds", f"{desk.root}/data/set:/data:ro", book),
        ("env.OMP_NUM_THREADS", "2", book),
        ("env.API_TOKEN", "…", "kernel.json"),
        ("isolation", "contain", "server"),
    }
    spec = settled.spec
    assert (spec.nv, spec.isolation, spec.env["OMP_NUM_THREADS"]) == (False, "contain", "2")
    assert spec.binds == (BindWish("/usr"), BindWish(f"{desk.root}/data/set", "/data", "ro"))


@pytest.mark.parametrize("form", ["torch.sif@sha256:{}", "renamed.sif@sha256:{}", "sha256:{}"])
def test_an_image_is_found_by_its_digest_whatever_it_is_called(desk: Desk, form: str) -> None:
    digest = desk.digests["images/torch.sif"]
    spec = desk.settle({"image": form.format(digest)}).spec
    assert (spec.image, spec.digest) == (f"{desk.root}/images/torch.sif", digest)


def test_an_image_in_a_folder_that_the_reader_named(desk: Desk) -> None:
    policy = {"images": ["kernels", f"{desk.root}/more"]}
    assert desk.settle({"image": "extra.sif"}, NotebookPolicy=policy).spec.image == f"{desk.root}/more/extra.sif"
    policy = {"images": [f"sha256:{desk.digests['project/evil.sif']}"]}
    assert desk.settle({"image": "./evil.sif"}, NotebookPolicy=policy).spec.image == f"{desk.root}/project/evil.sif"


def test_what_narrows_is_honoured(desk: Desk) -> None:
    spec = desk.settle({"home": "none", "isolation": "containall", "network": "none", "overlays": ["tmpfs"]}).spec
    assert (spec.home, spec.isolation, spec.network, len(spec.overlays)) == ("none", "containall", "none", 1)


def test_a_bind_by_path_that_the_reader_allows_keeps_to_what_was_judged(desk: Desk) -> None:
    (desk.root / "project/link").symlink_to(desk.root / "data/set")
    policy = {"binds": [f"{desk.root}/data:ro"]}
    spec = desk.settle(
        {"binds": ["./link:/mnt/set:ro", "$DATA/set::ro".replace("::", ":/data:")]}, NotebookPolicy=policy
    ).spec
    assert spec.binds == (
        BindWish(f"{desk.root}/data/set", "/mnt/set", "ro"),
        BindWish(f"{desk.root}/data/set", "/data", "ro"),
    )


def test_a_reader_can_pass_over_all_settings(desk: Desk) -> None:
    settled = desk.settle({"binds": ["/etc"]}, NotebookPolicy={"enabled": False})
    assert settled.spec.binds == ()
    assert "enabled" in settled.warnings[0]


def test_fields_that_the_reader_adds(desk: Desk) -> None:
    command = ["python", "-X", "utf8", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    assert desk.settle({"command": command}, NotebookPolicy={"fields": ["command"]}).spec.command == tuple(command)


# --- what is refused

HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "image beside the notebook": ({"image": "./evil.sif"}, "image"),
    "image that has the name of a known one": ({"image": "./torch.sif"}, "image"),
    "image by dots": ({"image": "../project/evil.sif"}, "image"),
    "image by a link": ({"image": "./link.sif"}, "image"),
    "image by the home folder": ({"image": "~/evil.sif"}, "image"),
    "image by a variable": ({"image": "$HOME/evil.sif"}, "image"),
    "image by URI": ({"image": "docker://evil.example/x"}, "image"),
    "bind": ({"binds": ["/etc"]}, "binds"),
    "bind of the root": ({"binds": ["/:/mnt"]}, "binds"),
    "bind by dots": ({"binds": ["../home:/mnt"]}, "binds"),
    "bind by the home folder": ({"binds": ["~/.ssh:/mnt"]}, "binds"),
    "bind of another's home": ({"binds": ["~root:/mnt"]}, "binds"),
    "bind by a variable": ({"binds": ["$HOME"]}, "binds"),
    "bind by a link": ({"binds": ["./home-link:/mnt"]}, "binds"),
    "bind with an escaped colon": ({"binds": ["/etc\\:x/../../etc:/mnt"]}, "binds"),
    "unknown name": ({"binds": ["secrets"]}, "binds"),
    "overlay beside the notebook": ({"overlays": ["./o.img:ro"]}, "overlays"),
    "overlay elsewhere": ({"overlays": ["/o.img"]}, "overlays"),
    "PATH": ({"env": {"PATH": "/x"}}, "env"),
    "LD_PRELOAD": ({"env": {"LD_PRELOAD": "/x.so"}}, "env"),
    "PYTHONSTARTUP": ({"env": {"PYTHONSTARTUP": "./x.py"}}, "env"),
    "path in small letters": ({"env": {"python_path": "x"}}, "env"),
    "BASH_ENV": ({"env": {"BASH_ENV": "x"}}, "env"),
    "MPLBACKEND": ({"env": {"MPLBACKEND": "module://evil"}}, "env"),
    "proxy": ({"env": {"https_proxy": "http://evil.example"}}, "env"),
    "engine's own variable": ({"env": {"APPTAINER_BIND": "/"}}, "env"),
    "inherited secret": ({"inherit_env": ["JUPYTERHUB_API_TOKEN"]}, "inherit_env"),
    "flags": ({"extra_flags": ["--bind", "/"]}, "extra_flags"),
    "command": ({"command": ["sh", "-c", "curl evil.example", "{connection_file}"]}, "command"),
    "home elsewhere": ({"home": "/etc"}, "home"),
    "wider isolation": ({"isolation": "default"}, "isolation"),
    "wider network": ({"network": "host"}, "network"),
    "wider home": ({"home": "host"}, "home"),
}


@pytest.mark.parametrize(("metadata", "field"), HOSTILE.values(), ids=HOSTILE)
def test_what_the_reader_did_not_allow_is_refused_with_field_reason_and_way_out(
    desk: Desk, metadata: dict[str, Any], field: str
) -> None:
    (desk.root / "project/link.sif").symlink_to("evil.sif")
    (desk.root / "project/home-link").symlink_to(desk.root / "home")
    for name in ("home/evil.sif", "project/o.img"):
        write_image(desk.root / name)
    with pytest.raises(PolicyError) as caught:
        desk.settle(metadata, {"isolation": "contain", "network": "none", "home": "none"})
    first, line = caught.value.message.splitlines()
    assert first == f"the notebook {desk.root}/project/book.ipynb asks for what your NotebookPolicy does not allow:"
    assert line.strip().startswith(f"{field}: ")
    assert caught.value.hint
    assert "metadata" in caught.value.hint


def test_the_line_in_the_hint_is_the_one_that_allows_it(desk: Desk) -> None:
    with pytest.raises(PolicyError) as caught:
        desk.settle({"image": "./evil.sif", "binds": ["$DATA/set:/data:ro"]})
    lines = [line.strip() for line in str(caught.value.hint).splitlines()[1:]]
    assert all(line.startswith("c.") for line in lines)
    config = Config()
    exec("\n".join(lines), {"c": config})
    settled = desk.settle({"image": "./evil.sif", "binds": ["$DATA/set:/data:ro"]}, **config)
    assert settled.spec.image == f"{desk.root}/project/evil.sif"


@pytest.mark.parametrize("folder", ["a'b\"); import evil #", "*", "[a-z]?", "\x1b[2J", "{username}"], ids=ascii)
def test_a_line_that_a_reader_copies_allows_this_folder_and_nothing_else(desk: Desk, folder: str) -> None:
    (desk.root / "project" / folder).mkdir()
    with pytest.raises(PolicyError) as caught:
        desk.settle({"binds": [f"./{folder}"]})
    assert caught.value.message.replace("\n", "").isprintable()
    (line,) = str(caught.value.hint).splitlines()[1:]
    config = Config()
    exec(line.strip(), {"c": config})
    assert isinstance(ast.parse(line.strip()).body[0], ast.Expr)
    with pytest.raises(PolicyError):
        desk.settle({"binds": ["./images", "/etc"]}, **config)
    if folder != "{username}":
        assert desk.settle({"binds": [f"./{folder}"]}, **config).spec.binds


def test_a_bind_over_programs_is_refused_although_its_source_is_allowed(desk: Desk) -> None:
    for destination in ("/usr/bin", "/data/../usr/bin", "/datasets", "/opt"):
        with pytest.raises(PolicyError, match="at its own path"):
            desk.settle({"binds": [f"$DATA/set:{destination}:ro"]}, NotebookPolicy={"binds": ["*"]})


def test_a_bind_that_is_allowed_for_reading_is_not_for_writing(desk: Desk) -> None:
    with pytest.raises(PolicyError, match="add :ro"):
        desk.settle({"binds": ["$DATA/set"]}, NotebookPolicy={"binds": [f"{desk.root}/data:ro"]})


@pytest.mark.parametrize(
    ("metadata", "error", "word"),
    [
        ({"image": "sha256:" + "0" * 64}, ImageNotFound, "none of your images"),
        ({"image": "torch.sif@sha256:" + "0" * 64}, ImageMismatch, "another one"),
        ({"image": "trch.sif"}, ImageNotFound, "trch.sif"),
        ({"binds": "data"}, SpecError, "binds"),
        ({"binds": [["data"]]}, SpecError, "binds"),
        ({"image": ["x"]}, SpecError, "image"),
        ({"imgae": "x"}, SpecError, "expected image"),
        ({"env": {"A": 1}}, SpecError, "quote it"),
        ([], SpecError, "an object"),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused_and_not_passed_over(
    desk: Desk, metadata: object, error: type[ApptainerError], word: str
) -> None:
    with pytest.raises(error, match=word):
        desk.settle(metadata)


def test_a_name_that_two_images_have_is_not_guessed(desk: Desk) -> None:
    write_image(desk.root / "more/torch.sif", b"another")
    with pytest.raises(SpecError, match="several images"):
        desk.settle({"image": "torch.sif"}, NotebookPolicy={"images": ["kernels", f"{desk.root}/more"]})


def test_a_named_bind_must_say_where_it_is(desk: Desk) -> None:
    with pytest.raises(SpecError, match=r"named_binds\.data"):
        desk.settle({"binds": ["data"]}, ApptainerConfig={"named_binds": {"data": "relative:/data"}})


# --- administrators


def test_a_notebook_cannot_have_settings_where_the_policy_says_so(desk: Desk) -> None:
    with pytest.raises(PolicyError, match="the policy of this server does not allow"):
        desk.settle({"nv": False}, ApptainerPolicy={"allow_notebooks": False})
    desk.settle(None, ApptainerPolicy={"allow_notebooks": False})


ADMINISTRATORS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "image": ({}, {"images": ["/elsewhere"]}, "image"),
    "image by digest": ({}, {"images": ["sha256:" + "0" * 64]}, "image"),
    "uri": ({"image": "docker://good.example.evil/x"}, {"images": ["docker://good.example"]}, "image"),
    "bind": ({"binds": ["/etc:/mnt"]}, {"binds": ["/data:ro"]}, "binds"),
    "writable bind": ({"binds": ["/data:/data"]}, {"binds": ["/data:ro"]}, "binds"),
    "overlay": ({"overlays": ["/o.img"]}, {"overlays": ["tmpfs"]}, "overlays"),
    "tmpfs": ({"overlays": ["tmpfs"]}, {"overlays": ["/overlays"]}, "overlays"),
    "home": ({}, {"homes": ["none"]}, "home"),
    "variable": ({"env": {"LD_PRELOAD": "x"}}, {"env": ["OMP_*"]}, "env"),
    "inherited": ({"inherit_env": ["S*"]}, {"inherit_env": ["SLURM_*"]}, "inherit_env"),
    "flag": ({"extra_flags": ["--fakeroot"]}, {"extra_flags": ["--no-privs"]}, "extra_flags"),
    "bind by a flag": ({"extra_flags": ["-B", "/secret"]}, {"binds": ["/data"]}, "extra_flags"),
    "network": ({}, {"networks": ["none"]}, "network"),
    "isolation": ({}, {"isolation": "contain"}, "isolation"),
}


@pytest.mark.parametrize(("config", "policy", "field"), ADMINISTRATORS.values(), ids=ADMINISTRATORS)
def test_a_policy_binds_kernel_json_as_well(
    desk: Desk, config: dict[str, Any], policy: dict[str, Any], field: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        desk.settle(None, config, ApptainerPolicy=policy)
    assert "the policy of this server" in caught.value.message
    assert f"\n  {field}: " in caught.value.message


def test_a_forced_value_can_make_a_kernel_fit_its_policy(desk: Desk) -> None:
    settled = desk.settle(
        None, ApptainerPolicy={"isolation": "contain"}, ApptainerConfig={"force": {"isolation": "contain"}}
    )
    assert settled.spec.isolation == "contain"


def test_limits_of_the_server_replace_the_kernels_and_a_notebook_has_none(desk: Desk) -> None:
    limits = {"resources": {"memory": "64G", "cpus": 8}}
    settled = desk.settle(None, limits, ApptainerConfig={"force": {"resources": {"memory": "8G"}}})
    assert settled.spec.resources == ResourcesWish(memory_bytes=8 << 30)
    with pytest.raises(PolicyError, match="resources"):
        desk.settle(limits)


def test_a_policy_has_the_last_word_over_forced_values_and_named_binds(desk: Desk) -> None:
    with pytest.raises(PolicyError, match="network"):
        desk.settle(None, ApptainerPolicy={"networks": ["none"]}, ApptainerConfig={"force": {"network": "host"}})
    with pytest.raises(PolicyError, match="binds"):
        desk.settle(
            {"binds": ["set"]}, ApptainerPolicy={"binds": []}, ApptainerConfig={"named_binds": {"set": "$DATA:/data"}}
        )


def test_a_policy_by_digest(desk: Desk) -> None:
    policy = {"images": [f"sha256:{desk.digests['images/own.sif']}"]}
    assert desk.settle(None, ApptainerPolicy=policy).spec.image == f"{desk.root}/images/own.sif"
    with pytest.raises(PolicyError, match="image"):
        desk.settle({"image": "torch.sif"}, ApptainerPolicy=policy)


# --- the schemas


@pytest.mark.parametrize("name", schemas.FILES)
def test_shipped_schemas_are_those_that_are_built(name: str) -> None:
    content = json.loads((Path(schemas.__file__).parent / name).read_text(encoding="utf-8"))
    assert content == schemas.FILES[name]()
    jsonschema.Draft202012Validator.check_schema(content)


@pytest.mark.parametrize(
    ("metadata", "is_right"),
    [
        ({}, True),
        ({"image": "torch.sif@sha256:" + "a" * 64, "binds": ["data"], "nv": True}, True),
        ({"image": "sha256:" + "a" * 64}, True),
        ({"binds": "data"}, False),
        ({"imgae": "x"}, False),
        ([], False),
    ],
    ids=str,
)
def test_schema_for_notebooks(metadata: object, is_right: bool) -> None:
    validator = jsonschema.Draft202012Validator(schemas.build_notebook_schema())
    assert validator.is_valid(metadata) == is_right


# --- the bridge


@pytest.mark.parametrize(
    ("config", "metadata", "settings", "expected"),
    [
        pytest.param({}, None, {}, "read", id="default"),
        pytest.param({}, None, {"ApptainerConfig": {"bridge": "full"}}, "full", id="of-the-account"),
        pytest.param({"bridge": "off"}, None, {"ApptainerConfig": {"bridge": "full"}}, "off", id="of-the-kernel"),
        pytest.param({}, None, {"ApptainerPolicy": {"bridge": "off"}}, "off", id="lowered-by-a-policy"),
        pytest.param(
            {}, None, {"ApptainerConfig": {"bridge": "full"}, "ApptainerPolicy": {"bridge": "read"}}, "read", id="both"
        ),
        pytest.param({"bridge": "full"}, {"bridge": "read"}, {}, "read", id="lowered-by-a-notebook"),
        pytest.param({}, None, {"ApptainerConfig": {"force": {"bridge": "off"}}}, "off", id="forced"),
        pytest.param({"bridge": "full"}, None, {"ApptainerPolicy": {"bridge": "read"}}, None, id="too-much"),
        pytest.param({}, {"bridge": "full"}, {}, None, id="raised-by-a-notebook"),
        pytest.param(
            {}, {"bridge": "read"}, {"ApptainerConfig": {"bridge": "off"}}, None, id="raised-above-the-account"
        ),
        pytest.param(
            {}, {"bridge": "read"}, {"ApptainerPolicy": {"bridge": "off"}}, None, id="raised-above-the-policy"
        ),
    ],
)
def test_how_far_a_kernel_may_ask_the_host(
    desk: Desk, config: dict[str, Any], metadata: object, settings: dict[str, Any], expected: str | None
) -> None:
    if expected is None:
        with pytest.raises(PolicyError, match="bridge: "):
            desk.settle(metadata, config, **settings)
    else:
        assert desk.settle(metadata, config, **settings).spec.bridge == expected
