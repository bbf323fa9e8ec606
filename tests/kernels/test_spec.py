"""The configuration of a kernel: what is accepted, what is refused and with which words, and the schema's agreement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import jupyter_apptainer.kernels.spec as spec_module
from jupyter_apptainer.errors import SpecError
from jupyter_apptainer.kernels.fields import FIELDS, join_words, split_words
from jupyter_apptainer.kernels.spec import (
    BindWish,
    ContainerSpec,
    OverlayWish,
    build_json_schema,
    parse_container_spec,
    resolve_paths,
    to_config,
)

SCHEMA_FILE = Path(spec_module.__file__).with_name("kernel-config.schema.json")
R_COMMAND = ["R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"]

GOOD: dict[str, dict[str, Any]] = {
    "image only": {"image": "/i.sif"},
    "relative image": {"image": "../images/i.sif"},
    "image from a variable": {"image": "$SCRATCH/i.sif"},
    "docker": {"image": "docker://python:3.12@sha256:abc"},
    "oras": {"image": "oras://host/a:b"},
    "library": {"image": "library://a/b/c"},
    "digest of a file": {"image": "~/i.sif@sha256:" + "0123456789abcdef" * 4},
    "nv true": {"image": "i", "nv": True},
    "nv false": {"image": "i", "nv": False},
    "nv auto": {"image": "i", "nv": "auto"},
    "rocm": {"image": "i", "rocm": True},
    "bind": {"image": "i", "binds": ["/a"]},
    "bind elsewhere": {"image": "i", "binds": ["/a:/b"]},
    "bind read-only": {"image": "i", "binds": ["~/a:/b:ro"]},
    "bind rw": {"image": "i", "binds": ["a b,c:/b d:rw"]},
    "bind with a colon": {"image": "i", "binds": ["/a\\:b:/c\\:d"]},
    "bind with a backslash": {"image": "i", "binds": ["/a\\\\b"]},
    "overlay": {"image": "i", "overlays": ["o.img"]},
    "overlay read-only": {"image": "i", "overlays": ["o.img:ro", "p.img:ro"]},
    "one writable overlay": {"image": "i", "overlays": ["o.img:ro", "p.img"]},
    "tmpfs": {"image": "i", "overlays": ["tmpfs"]},
    "tmpfs above a layer": {"image": "i", "overlays": ["o.img:ro", "tmpfs"]},
    "a file called auto": {"image": "i", "overlays": ["./auto"]},
    "automatic overlay": {"image": "i", "overlays": ["auto", "o.img:ro"]},
    "automatic overlay with a size": {"image": "i", "overlays": ["auto:64"]},
    "an overlay for each notebook": {"image": "i", "overlays": ["auto:notebook"]},
    "an overlay for each notebook with a size": {"image": "i", "overlays": ["auto:notebook:2048"]},
    "env": {"image": "i", "env": {"A_1": "x,y \"'$(id)\n", "_B": ""}},
    "inherit": {"image": "i", "inherit_env": ["A", "SLURM_*"]},
    "home host": {"image": "i", "home": "host"},
    "home none": {"image": "i", "home": "none"},
    "home folder": {"image": "i", "home": "~/containers/home"},
    "isolation": {"image": "i", "isolation": "containall"},
    "resources": {"image": "i", "resources": {"memory": "4G", "cpus": 2, "pids": 512}},
    "resources in other words": {"image": "i", "resources": {"memory": 3 << 30, "cpus": 0.5}},
    "no resources": {"image": "i", "resources": {}},
    "network": {"image": "i", "network": "none"},
    "command": {"image": "i", "command": R_COMMAND},
    "placeholder within a word": {"image": "i", "command": ["sh", "-c", "exec k -f {connection_file}"]},
    "shared instance": {"image": "i", "instance": "shared:my_lab-2"},
    "persist": {"image": "i", "persist": True},
    "persist for a time": {"image": "i", "persist": "90m"},
    "preload": {"image": "i", "preload": ["numpy", "matplotlib.pyplot"]},
    "extra flags": {"image": "i", "extra_flags": ["--security", "seccomp:x.json"]},
    "later fields that ask for nothing": {
        "image": "i",
        "instance": "kernel",
        "scheduler": None,
        "resources": {},
    },
}

# Each with a word of the message beside the field's name.
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no image": ({}, "image", "missing"),
    "empty image": ({"image": ""}, "image", "path"),
    "image a number": ({"image": 3}, "image", "path"),
    "unknown scheme": ({"image": "shub://x"}, "image", "docker://"),
    "instance as image": ({"image": "instance://x"}, "image", "docker://"),
    "short digest": ({"image": "/i.sif@sha256:0"}, "image", "64 digits"),
    "digest in capitals": ({"image": "/i.sif@sha256:" + "A" * 64}, "image", "64 digits"),
    "digest in the middle": ({"image": f"/i@sha256:{'a' * 64}/i.sif"}, "image", "64 digits"),
    "digest of nothing": ({"image": "@sha256:" + "a" * 64}, "image", "64 digits"),
    "nv a word": ({"image": "i", "nv": "true"}, "nv", '"auto", true or false'),
    "nv one": ({"image": "i", "nv": 1}, "nv", '"auto", true or false'),
    "rocm a word": ({"image": "i", "rocm": "no"}, "rocm", "true or false"),
    "binds a string": ({"image": "i", "binds": "/a"}, "binds", "list"),
    "bind a number": ({"image": "i", "binds": [1]}, "binds[0]", "SRC:DEST"),
    "bind empty": ({"image": "i", "binds": ["/a", ""]}, "binds[1]", "SRC:DEST"),
    "bind without source": ({"image": "i", "binds": [":/a"]}, "binds[0]", "SRC:DEST"),
    "bind with relative destination": ({"image": "i", "binds": ["/a:b"]}, "binds[0]", "absolute"),
    "bind with a mode for a destination": ({"image": "i", "binds": ["/a:ro"]}, "binds[0]", "SRC:DEST:ro"),
    "bind with an unknown mode": ({"image": "i", "binds": ["/a:/b:rx"]}, "binds[0]", "SRC:DEST:ro"),
    "bind with too many colons": ({"image": "i", "binds": ["/a:/b:ro:x"]}, "binds[0]", "\\:"),
    "overlay auto for what": ({"image": "i", "overlays": ["auto:me"]}, "overlays[0]", "auto[:notebook][:SIZE_MIB]"),
    "overlay auto too small": ({"image": "i", "overlays": ["auto:63"]}, "overlays[0]", "64 or more"),
    "overlay auto read-only": ({"image": "i", "overlays": ["auto:ro"]}, "overlays[0]", "auto"),
    "overlay auto twice": ({"image": "i", "overlays": ["auto", "tmpfs"]}, "overlays", "at most one"),
    "overlay with rw": ({"image": "i", "overlays": ["o.img:rw"]}, "overlays[0]", "FILE:ro"),
    "tmpfs with a size": ({"image": "i", "overlays": ["tmpfs:64"]}, "overlays[0]", "tmpfs"),
    "two writable overlays": ({"image": "i", "overlays": ["a", "b"]}, "overlays", "at most one"),
    "a writable overlay and tmpfs": ({"image": "i", "overlays": ["a", "tmpfs"]}, "overlays", "at most one"),
    "env a list": ({"image": "i", "env": ["A=1"]}, "env", "object"),
    "env a number": ({"image": "i", "env": {"A": 4}}, "env.A", 'quote it, "4"'),
    "env a boolean": ({"image": "i", "env": {"A": True}}, "env.A", 'quote it, "true"'),
    "env null": ({"image": "i", "env": {"A": None}}, "env.A", "string"),
    "env a bad name": ({"image": "i", "env": {"A-B": "x"}}, "env.A-B", "letters"),
    "inherit all": ({"image": "i", "inherit_env": ["*"]}, "inherit_env[0]", "PREFIX_*"),
    "inherit with a star inside": ({"image": "i", "inherit_env": ["A*B"]}, "inherit_env[0]", "PREFIX_*"),
    "home a word": ({"image": "i", "home": "hots"}, "home", '"host", "none"'),
    "isolation": ({"image": "i", "isolation": "full"}, "isolation", '"containall"'),
    "isolation a list": ({"image": "i", "isolation": ["contain"]}, "isolation", '"containall"'),
    "network": ({"image": "i", "network": "bridge"}, "network", '"none"'),
    "command a string": ({"image": "i", "command": "python {connection_file}"}, "command", "list"),
    "command without a program": ({"image": "i", "command": ["", "{connection_file}"]}, "command", "program"),
    "command without the placeholder": ({"image": "i", "command": ["python"]}, "command", "{connection_file}"),
    "command with a number": ({"image": "i", "command": ["k", 1, "{connection_file}"]}, "command[1]", "string"),
    "extra flag without a dash": ({"image": "i", "extra_flags": ["nv"]}, "extra_flags[0]", "dash"),
    "null": ({"image": "i", "nv": None}, "nv", '"auto"'),
    "unknown": ({"image": "i", "bind": ["/a"]}, "bind", "expected binds (unknown field)"),
    "unknown and far": ({"image": "i", "zzz": 1}, "zzz", "one of the fields image, nv"),
    "resources a list": ({"image": "i", "resources": ["4G"]}, "resources", "an object"),
    "resources unknown": ({"image": "i", "resources": {"mem": "4G"}}, "resources.mem", "expected resources.memory"),
    "memory without unit": ({"image": "i", "resources": {"memory": "4"}}, "resources.memory", '"4G"'),
    "memory in words": ({"image": "i", "resources": {"memory": "much"}}, "resources.memory", '"much"'),
    "memory too small": ({"image": "i", "resources": {"memory": 1024}}, "resources.memory", "at least 128 MiB"),
    "memory true": ({"image": "i", "resources": {"memory": True}}, "resources.memory", "number of bytes"),
    "cpus none": ({"image": "i", "resources": {"cpus": 0}}, "resources.cpus", "above 0"),
    "cpus a string": ({"image": "i", "resources": {"cpus": "2"}}, "resources.cpus", "above 0"),
    "pids too few": ({"image": "i", "resources": {"pids": 3}}, "resources.pids", "at least 32"),
    "pids a fraction": ({"image": "i", "resources": {"pids": 64.5}}, "resources.pids", "whole number"),
    "limit null": ({"image": "i", "resources": {"memory": None}}, "resources.memory", "null, expected a size"),
    "instance a word": ({"image": "i", "instance": "shared"}, "instance", "shared:NAME"),
    "shared without a name": ({"image": "i", "instance": "shared:"}, "instance", "shared:NAME"),
    "shared with a path": ({"image": "i", "instance": "shared:a/b"}, "instance", "letters"),
    "persist a number": ({"image": "i", "persist": 8}, "persist", '"8h"'),
    "persist without a unit": ({"image": "i", "persist": "8"}, "persist", '"8h"'),
    "persist nothing": ({"image": "i", "persist": "0h"}, "persist", '"8h"'),
    "preload a word": ({"image": "i", "preload": "numpy"}, "preload", "a list"),
    "preload no module": ({"image": "i", "preload": ["numpy as np"]}, "preload[0]", "the name of a Python module"),
    "scheduler": ({"image": "i", "scheduler": {"name": "slurm"}}, "scheduler", "not available in this version"),
}


def is_valid(config: object) -> bool:
    return bool(jsonschema.Draft202012Validator(build_json_schema()).is_valid(config))


@pytest.mark.parametrize("config", GOOD.values(), ids=GOOD)
def test_good_configuration_is_accepted_by_parser_and_schema(config: dict[str, Any]) -> None:
    parse_container_spec(config)
    assert is_valid(config)


@pytest.mark.parametrize(("config", "field", "word"), BAD.values(), ids=BAD)
def test_wrong_field_is_named_with_value_and_expectation(config: dict[str, Any], field: str, word: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_container_spec(config)
    text = caught.value.message
    assert f"{field}: " in text
    assert word in text
    if field in config:
        assert json.dumps(config[field]) in text


@pytest.mark.parametrize(("config", "field", "word"), BAD.values(), ids=BAD)
def test_schema_refuses_what_the_parser_refuses(config: dict[str, Any], field: str, word: str) -> None:
    assert not is_valid(config)


@pytest.mark.parametrize("memory", ["127M", "1K", "0G", "0.1G"])
def test_memory_that_no_kernel_can_live_in_is_refused(memory: str) -> None:
    with pytest.raises(SpecError, match="at least 128 MiB"):
        parse_container_spec({"image": "i", "resources": {"memory": memory}})


@pytest.mark.parametrize(
    ("memory", "bytes_", "written"),
    [
        ("4G", 4 << 30, "4G"),
        ("512m", 512 << 20, "512M"),
        ("1.5GiB", 3 << 29, "1536M"),
        ("2T", 2 << 40, "2T"),
        ("200000K", 200000 << 10, 200000 << 10),
        (1 << 30, 1 << 30, "1G"),
    ],
)
def test_sizes_are_powers_of_1024(memory: object, bytes_: int, written: object) -> None:
    spec = parse_container_spec({"image": "i", "resources": {"memory": memory}})
    assert spec.resources.memory_bytes == bytes_
    assert to_config(spec)["resources"] == {"memory": written}


@pytest.mark.parametrize(
    ("field", "value"),
    [("image", "i\n"), ("binds", ["/a\n"]), ("overlays", ["o\n"]), ("home", "/h\n"), ("env", {"A\n": "x"})],
)
def test_line_break_at_the_end_is_seen(field: str, value: object) -> None:
    with pytest.raises(SpecError, match=field):
        parse_container_spec({"image": "i", field: value})


@pytest.mark.parametrize("config", [None, [], "i.sif", 3], ids=repr)
def test_configuration_that_is_no_object_is_refused(config: Any) -> None:
    with pytest.raises(SpecError, match="an object"):
        parse_container_spec(config)
    assert not is_valid(config)


def test_all_wrong_fields_are_in_one_error_one_line_each() -> None:
    config = {"imgae": "x", "nv": "yes", "binds": ["/a:b", "/c:d"], "env": {"A": 1}}
    with pytest.raises(SpecError) as caught:
        parse_container_spec(config, origin="the kernel lab")
    first, *lines = caught.value.message.splitlines()
    assert first == "the kernel lab has 6 wrong fields:"
    fields = [line.strip().partition(":")[0] for line in lines]
    assert sorted(fields) == ["binds[0]", "binds[1]", "env.A", "image", "imgae", "nv"]
    assert any("imgae" in line and "expected image" in line for line in lines)


def test_value_of_a_secret_is_not_shown() -> None:
    with pytest.raises(SpecError) as caught:
        parse_container_spec({"image": "i", "env": {"API_TOKEN": 12345}})
    assert "12345" not in caught.value.message.partition("expected")[0]


def test_defaults_are_those_of_the_dataclass() -> None:
    assert parse_container_spec({"image": "i"}) == ContainerSpec(image="i")


def test_words_become_values() -> None:
    spec = parse_container_spec(
        {"image": "i", "binds": ["/a", "/a\\:b:/c:ro"], "overlays": ["o\\:p:ro", "tmpfs"], "inherit_env": ["A"]}
    )
    assert spec.binds == (BindWish("/a"), BindWish("/a:b", "/c", "ro"))
    assert spec.overlays == (OverlayWish("file", "o:p", is_read_only=True), OverlayWish("tmpfs"))
    assert spec.inherit_env == ("A",)


@pytest.mark.parametrize("config", GOOD.values(), ids=GOOD)
def test_configuration_survives_the_way_there_and_back(config: dict[str, Any]) -> None:
    spec = parse_container_spec(config)
    written = to_config(spec)
    assert parse_container_spec(json.loads(json.dumps(written))) == spec
    assert is_valid(written)


def test_only_what_differs_from_the_defaults_is_written() -> None:
    assert to_config(ContainerSpec(image="i", nv="auto", network="none")) == {"image": "i", "network": "none"}


@pytest.mark.parametrize("words", [("a",), ("a:b", "c"), ("a\\", "b\\:"), ("\\", ":", "")], ids=repr)
def test_escaped_words_survive_the_way_there_and_back(words: tuple[str, ...]) -> None:
    assert split_words(join_words(*words)) == list(words)


def test_shipped_schema_is_the_one_that_is_built() -> None:
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == build_json_schema()
    jsonschema.Draft202012Validator.check_schema(build_json_schema())


def test_every_field_of_the_spec_has_a_row() -> None:
    assert set(FIELDS) == set(ContainerSpec.__dataclass_fields__) - {"digest"}


ENVIRON = {"HOME": "/home/me", "DATA": "/data/x", "EMPTY": ""}


class TestResolvePaths:
    def resolve(self, **fields: Any) -> ContainerSpec:
        return resolve_paths(ContainerSpec(**{"image": "/i", **fields}), "/spec/dir", ENVIRON)

    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            ("/abs/i.sif", "/abs/i.sif"),
            ("i.sif", "/spec/dir/i.sif"),
            ("../i.sif", "/spec/i.sif"),
            ("~/i.sif", "/home/me/i.sif"),
            ("~", "/home/me"),
            ("~root/i.sif", "/root/i.sif"),
            ("$DATA/i.sif", "/data/x/i.sif"),
            ("${DATA}y/i.sif", "/data/xy/i.sif"),
            ("/a$$b", "/a$b"),
            ("/a$ b", "/a$ b"),
            ("/a~b", "/a~b"),
            ("docker://$DATA", "docker://$DATA"),
        ],
    )
    def test_image(self, written: str, expected: str) -> None:
        assert self.resolve(image=written).image == expected

    def test_sources_overlays_and_home_are_filled_in_and_destinations_are_not(self) -> None:
        spec = self.resolve(
            binds=(BindWish("~/d", "/$DATA"), BindWish("rel")),
            overlays=(OverlayWish("file", "$DATA/o.img"), OverlayWish("tmpfs")),
            home="~/h",
        )
        assert spec.binds == (BindWish("/home/me/d", "/$DATA"), BindWish("/spec/dir/rel"))
        assert spec.overlays == (OverlayWish("file", "/data/x/o.img"), OverlayWish("tmpfs"))
        assert spec.home == "/home/me/h"
        assert self.resolve(home="none").home == "none"

    def test_all_unset_variables_are_named(self) -> None:
        with pytest.raises(SpecError) as caught:
            self.resolve(image="$NO/i", binds=(BindWish("/a"), BindWish("${EMPTY}/b")), home="~nobody-here/x")
        text = caught.value.message
        assert "image:" in text
        assert "the variable NO is not set" in text
        assert "binds[1]:" in text
        assert "the variable EMPTY is not set" in text
        assert "there is no user nobody-here" in text
