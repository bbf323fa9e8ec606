"""A line becomes words as a shell would split it, and no shell is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_apptainer.bridge.lent.call import SpecError
from jupyter_apptainer.bridge.lent.expand import expand
from jupyter_apptainer.bridge.lent.options import take_options
from jupyter_apptainer.bridge.lent.words import split_words

ENVIRON = {"HOME": "/home/ada", "DATA": "/data/my files", "N": "3"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param("", (), id="nothing"),
        pytest.param("exec  a.sif\tls", ("exec", "a.sif", "ls"), id="blanks"),
        pytest.param("exec 'my image.sif' ls", ("exec", "my image.sif", "ls"), id="single quotes"),
        pytest.param('exec "my image.sif" ls', ("exec", "my image.sif", "ls"), id="double quotes"),
        pytest.param(r"exec my\ image.sif", ("exec", "my image.sif"), id="backslash"),
        pytest.param("run --env=A='b c'd", ("run", "--env=A=b cd"), id="quotes within a word"),
        pytest.param("exec $DATA/x ${N}0", ("exec", "/data/my files/x", "30"), id="environment"),
        pytest.param("sh -c 'echo $NOBODY ~ `x`'", ("sh", "-c", "echo $NOBODY ~ `x`"), id="single quotes keep all"),
        pytest.param(r'sh -c "\$N is \"$N\""', ("sh", "-c", '$N is "3"'), id="escapes in double quotes"),
        pytest.param(
            "-B ~/in:/in --home=~ ~/a", ("-B", "/home/ada/in:/in", "--home=/home/ada", "/home/ada/a"), id="home"
        ),
        pytest.param("a~b x:~/y", ("a~b", "x:/home/ada/y"), id="tilde inside a word"),
        pytest.param("stop 'web*' $ $1", ("stop", "web*", "$", "$1"), id="what is no variable stays"),
        pytest.param("echo '|' \">\" ''", ("echo", "|", ">", ""), id="quoted shell words and an empty one"),
    ],
)
def test_line_is_split(line: str, words: tuple[str, ...]) -> None:
    assert split_words(line, ENVIRON) == words


@pytest.mark.parametrize("line", ["a | b", "a > f", "a && b", "a ; b", "a &", "a 2>&1", "a < f", "a || b", "a 2>err"])
def test_words_for_a_shell_are_refused(line: str) -> None:
    with pytest.raises(SpecError, match="no shell reads this line"):
        split_words(line, ENVIRON)


@pytest.mark.parametrize(
    ("words", "command", "out", "is_background"),
    [
        pytest.param("--out x exec i ls", "exec i ls", "x", False, id="output"),
        pytest.param("--bg --proc p run i", "run i", None, True, id="background"),
        pytest.param(
            "exec i prog --out x --bg", "exec i prog --out x --bg", None, False, id="the program's own options"
        ),
    ],
)
def test_options_of_the_magic_stand_first(words: str, command: str, out: str | None, is_background: bool) -> None:
    options, rest = take_options(words.split())
    assert (" ".join(rest), options.out, options.is_background) == (command, out, is_background)


def test_variables_may_follow_the_command() -> None:
    options, rest = take_options(["--var", "a", "exec", "--var", "b:pickle", "i", "python", "--var", "c"])
    assert options.variables == (("a", "json"), ("b", "pickle"))
    assert rest == ("exec", "i", "python", "--var", "c")


@pytest.mark.parametrize(
    ("line", "expanded"),
    [
        pytest.param("exec $image ls", "exec a.sif ls", id="name"),
        pytest.param(
            "exec {image} $HOME {nobody}", "exec a.sif $HOME {nobody}", id="what is unknown stays, and stops nothing"
        ),
        pytest.param("exec {'-'.join(words)}", "exec x-y", id="expression"),
        pytest.param("sh -c 'echo $image {image}' $image", "sh -c 'echo $image a.sif' a.sif", id="single quotes"),
        pytest.param('sh -c "it\'s $image"', 'sh -c "it\'s a.sif"', id="apostrophe in double quotes"),
        pytest.param("$$image {{image}}", "$image {image}", id="escapes"),
        pytest.param("$name.sif $path.name", "lab.sif b.txt", id="attribute, or the end of a name"),
        pytest.param("awk '{print $1}' {", "awk '{print $1}' {", id="a brace alone"),
        pytest.param("{1:2}", "{1:2}", id="no format"),
    ],
)
def test_python_variables_are_replaced(line: str, expanded: str) -> None:
    namespace = {"image": "a.sif", "words": ["x", "y"], "name": "lab", "path": Path("/a/b.txt")}
    assert expand(line, namespace) == expanded
