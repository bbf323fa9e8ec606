"""Promises of the house itself: what is importable and how fast, what documents say, what no file may contain."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from traitlets.config import Configurable

import jupyter_apptainer
from jupyter_apptainer.bridge.lent.options import FLAGS, VALUES
from jupyter_apptainer.cli.main import COMMANDS, EXIT_CODES, INTERRUPTED, PIPE_CLOSED, build_parser, main
from jupyter_apptainer.config import ApptainerConfig
from jupyter_apptainer.engine.environment import _KEPT
from jupyter_apptainer.errors import iter_error_classes
from jupyter_apptainer.kernels.environment import ALLOWED, NEVER, RESERVED
from jupyter_apptainer.kernels.fields import UNBUILT
from jupyter_apptainer.kernels.notebook import VARIABLE
from jupyter_apptainer.kernels.spec import build_json_schema
from jupyter_apptainer.magics.own_words import ALIASES, WORDS
from jupyter_apptainer.policy import ApptainerPolicy, NotebookPolicy
from jupyter_apptainer.server.app import ApptainerExtension
from jupyter_apptainer.server.openapi import load_openapi
from jupyter_apptainer.tasks.model import Task, TaskSpec

# The same for every user.
pytestmark = pytest.mark.user

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs/reference"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])

# Doors that have commands of their own below them.
GROUPS = frozenset({"engine", "kernel", "image", "overlay", "instance", "registry", "tasks"})

_MADE = frozenset({".git", ".venv", "out", "build", "dist", "node_modules", "__pycache__"})
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
_CODE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"(?:jupyter |bin/jupyter-)apptainer ([a-z]+(?: [a-z]+)?)")


def iter_text_files() -> Iterator[tuple[Path, str]]:
    """Yield each file of the project that is text, without what is made from others."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in _MADE and not name.endswith(("_cache", ".egg-info"))]
        for path in (Path(folder, name) for name in files):
            try:
                yield path.relative_to(ROOT), path.read_text()
            except (UnicodeDecodeError, FileNotFoundError):
                continue


# --- the package


@pytest.mark.parametrize(
    ("group", "name"),
    [
        pytest.param("jupyter_client.kernel_provisioners", "apptainer-provisioner", id="provisioner"),
        pytest.param("console_scripts", "jupyter-apptainer", id="command"),
    ],
)
def test_entry_point_loads(group: str, name: str) -> None:
    (found,) = entry_points(group=group, name=name)
    assert callable(found.load())


def test_import_is_light() -> None:
    heavy = ["IPython", "jupyter_client", "jupyter_core", "tornado", "traitlets", "zmq", "asyncio"]
    code = f"import sys, jupyter_apptainer; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("words", [["--help"], ["kernel", "--help"]], ids=" ".join)
def test_help_is_light(words: list[str]) -> None:
    code = (
        "import sys\nfrom jupyter_apptainer.cli.main import main\n"
        f"sys.argv = ['jupyter-apptainer', *{words}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('IPython', 'asyncio', 'jupyter_client', 'tornado', 'traitlets', 'zmq') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"


def test_package_is_marked_as_typed() -> None:
    assert (Path(jupyter_apptainer.__file__).parent / "py.typed").exists()


# --- the documents


def test_changelog_tells_of_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    sections = re.split(r"^## \[", text, flags=re.MULTILINE)[1:]
    titles = [section.partition("]")[0] for section in sections]
    assert titles[0] == "Unreleased"
    released = jupyter_apptainer.__version__ in titles
    assert released or "\n- " in sections[0], "neither a section for this version nor anything unreleased"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_resolve(document: Path) -> None:
    prose = _CODE.sub("", document.read_text())
    broken = [link for link in _LINK.findall(prose) if not urlsplit(link).scheme and not resolves(document, link)]
    assert not broken


def resolves(document: Path, link: str) -> bool:
    """Say whether a relative link leads to a file, and its fragment to a heading there."""
    path, _, fragment = link.partition("#")
    target = (document.parent / path).resolve() if path else document
    if not target.exists():
        return False
    return not fragment or fragment in {slug(title) for title in _HEADING.findall(target.read_text())}


def slug(title: str) -> str:
    """Return the anchor that GitHub and MkDocs make of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")


def test_documents_are_reached_from_the_navigation() -> None:
    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert named == {str(path.relative_to(ROOT / "docs")) for path in DOCUMENTS if path.is_relative_to(ROOT / "docs")}


def find_commands() -> list[str]:
    """Return the commands of ours that documents, notebooks and scripts tell people to type."""
    suffixes = {".md", ".ipynb", ".sh"}
    found = set()
    for path, text in iter_text_files():
        if path.suffix in suffixes:
            for words in _COMMAND.findall(text):
                first, _, second = words.partition(" ")
                found.add(f"{first} {second}".strip() if first in GROUPS else first)
    return sorted(found)


@pytest.mark.parametrize("command", find_commands())
def test_command_in_documents_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("notebook", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda path: path.name)
def test_notebook_is_kept_without_outputs(notebook: Path) -> None:
    cells = json.loads(notebook.read_text())["cells"]
    assert not [cell["id"] for cell in cells if cell.get("outputs") or cell.get("execution_count")]


# --- the reference, compared with the code


def read_table(document: str, column: str) -> dict[str, list[str]]:
    """Return the rows of the table whose header begins with `column`, by the first cell without its backquotes."""
    rows: dict[str, list[str]] = {}
    is_inside = False
    for line in (REFERENCE / document).read_text().splitlines():
        cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells:
            is_inside = False
        elif cells[0] == column:
            is_inside = True
        elif is_inside and not cells[0].startswith("---"):
            rows[cells[0].strip("`")] = cells[1:]
    return rows


def test_every_error_is_in_the_reference() -> None:
    rows = read_table("errors.md", "code")
    assert {code: cells[0].strip("`") for code, cells in rows.items()} == {
        cls.code: cls.__name__ for cls in iter_error_classes()
    }
    assert not [code for code, cells in rows.items() if not cells[1]]
    hints = {cls.code: (cls.default_hint or "") for cls in iter_error_classes()}
    assert {code: cells[2] for code, cells in rows.items()} == hints


def test_every_field_of_kernel_json_is_in_the_reference() -> None:
    properties: Any = build_json_schema()["properties"]
    rows = read_table("kernel-json.md", "field")
    assert set(rows) == set(properties) - set(UNBUILT)
    defaults = {name: cells[1].strip("`") for name, cells in rows.items()}
    assert {name: json.loads(text) for name, text in defaults.items() if text} == {
        name: properties[name]["default"] for name in rows if "default" in properties[name]
    }
    text = (REFERENCE / "kernel-json.md").read_text()
    assert not [name for name in UNBUILT if f"`{name}`" not in text]


@pytest.mark.parametrize("cls", [ApptainerConfig, ApptainerPolicy, NotebookPolicy, ApptainerExtension])
def test_every_setting_is_in_the_reference(cls: type[Configurable]) -> None:
    traits = cls.class_own_traits(config=True)
    rows = read_table("configuration.md", f"trait of `c.{cls.__name__}`")
    written = {name: cells[1].strip("`").replace('"', "'") for name, cells in rows.items()}
    assert written == {name: repr(trait.default()).replace('"', "'") for name, trait in traits.items()}
    assert not [name for name, trait in traits.items() if not trait.help]


def test_every_variable_is_in_the_reference() -> None:
    text = (REFERENCE / "environment-variables.md").read_text()
    names = [*_KEPT, *(pattern for pattern, _ in ALLOWED), *NEVER, *RESERVED, "JUPYTER_APPTAINER_HOME", VARIABLE]
    assert not [name for name in names if f"`{name}`" not in text]


def test_every_field_of_a_task_is_in_the_reference() -> None:
    written = {name.strip("` ") for cell in read_table("tasks.md", "field of a task") for name in cell.split(",")}
    assert written == set(Task(id="", spec=TaskSpec(kind="", title="", work="", args={})).to_json())


def test_every_route_is_in_the_reference() -> None:
    rows = read_table("rest.md", "route")
    written = {(route.partition("?")[0], cells[1].strip("`")) for route, cells in rows.items()}
    assert written == {
        (f"{method.upper()} {path}", operation["x-resource"].partition(":")[2])
        for path, operations in load_openapi()["paths"].items()
        for method, operation in operations.items()
        if method != "parameters"
    }


def test_every_exit_status_is_in_the_reference() -> None:
    rows = read_table("command-line.md", "status")
    assert set(rows) == {str(code) for code in {0, *EXIT_CODES.values(), INTERRUPTED, PIPE_CLOSED}}


def test_every_option_of_the_magics_is_in_the_reference() -> None:
    rows = read_table("magics.md", "magic option")
    assert {name: cells[0] for name, cells in rows.items()} == {**FLAGS, **VALUES}
    words = set(read_table("magics.md", "word of ours"))
    assert {word.split()[0].strip("`,") for word in words} == {*WORDS, *ALIASES}


def iter_parsers(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the parser and all below it, each with the words that lead to it."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, child in action.choices.items():
                yield from iter_parsers(child, f"{name} {verb}".strip())


def find_all_commands() -> dict[str, argparse.ArgumentParser]:
    """Return every command that does something, and its parser."""
    found: dict[str, argparse.ArgumentParser] = {}
    for command in COMMANDS:
        parsers = dict(iter_parsers(build_parser(command)))
        found |= {
            name: parser
            for name, parser in parsers.items()
            if name.partition(" ")[0] == command and parser.get_default("func")
        }
    return found


def test_every_command_is_in_the_reference() -> None:
    rows = read_table("command-line.md", "command")
    plain = {" ".join(word for word in name.split() if word.islower()): cells for name, cells in rows.items()}
    commands = find_all_commands()
    assert set(plain) == set(commands)
    options = "".join(read_table("command-line.md", "option"))
    for name, parser in commands.items():
        text = plain[name][1] + (options if "container" in plain[name][1] else "")
        own = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
        assert not [option for option in own - {"--help"} if option not in text], name


@pytest.mark.parametrize("command", ["", *COMMANDS, *find_all_commands()])
def test_help_has_an_example(command: str) -> None:
    first = command.partition(" ")[0]
    parser = dict(iter_parsers(build_parser(first or None)))[command]
    assert f"jupyter apptainer {command}".strip() in (parser.epilog or "")


def iter_documented_lines() -> Iterator[str]:
    """Yield each command of ours in the shell examples of the documents and in the examples of the help."""
    texts = [block for path in DOCUMENTS for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL)]
    texts += [parser.epilog or "" for parser in find_all_commands().values()]
    for text in texts:
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r" && ", line.strip()):
                if re.match(r"(\S*/)?jupyter apptainer ", part):
                    yield part


@pytest.mark.parametrize("line", sorted(set(iter_documented_lines())))
def test_documented_command_line_is_accepted(line: str) -> None:
    words = shlex.split(line, comments=True)[2:]
    end = next((index for index, word in enumerate(words) if word in ("|", "<", ">")), len(words))
    arguments = build_parser(words[0]).parse_args(words[:end])
    assert arguments.func


# --- the files


def test_no_file_names_this_machine() -> None:
    """A path of the developer's machine or the name of a mirror works nowhere else; both are asked for at run time."""
    here = {str(ROOT), *find_mirrors()}
    if sys.prefix != sys.base_prefix:
        here.add(sys.prefix)
    assert not [f"{path}: {word}" for path, text in iter_text_files() for word in here if word in text]


def find_mirrors() -> set[str]:
    """Return the hosts of the package indexes that this machine is configured for."""
    answers = [run_if_there(sys.executable, "-m", "pip", "config", "list")]
    answers.append(run_if_there("apt-get", "indextargets", "--format", "$(SITE)"))
    hosts = {urlsplit(url).hostname for answer in answers for url in re.findall(r"https?://[^\s'\"]+", answer)}
    return {host for host in hosts if host}


def run_if_there(program: str, *arguments: str) -> str:
    if not shutil.which(program):
        return ""
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("script", sorted([ROOT / ".ci/run", *ROOT.glob("tools/*.sh")]), ids=lambda path: path.name)
def test_script_is_executable_unless_it_is_sourced(script: Path) -> None:
    is_sourced = not script.read_text().startswith("#!")
    assert os.access(script, os.X_OK) != is_sourced
