"""Failures of pull, push and build, and of command lines."""

from __future__ import annotations

from ... import errors as e
from .rule import Rule, build_row

_UNREACHABLE = "check the name and the network; behind a proxy, set `https_proxy`"
_LOGIN = "log in: `jupyter apptainer registry login HOST -u USER`; a misspelt name gives the same answer"

ROWS: tuple[Rule, ...] = (
    build_row(
        "registry-plain-http",
        r"server gave HTTP response to HTTPS client|first record does not look like a TLS handshake",
        e.RegistryError,
        "the registry of {subject} speaks plain HTTP",
        "add `--no-https`, or name the registry in the setting `ApptainerConfig.no_https`",
    ),
    build_row(
        "registry-login",
        r"(?i)\bunauthorized\b|authentication required|requested access to the resource is denied|403 Forbidden"
        r"|unable to retrieve auth token|invalid username/password",
        e.RegistryAuthError,
        "the registry does not let us have {subject}",
        _LOGIN,
    ),
    build_row(
        "registry-not-there",
        r"(?i)manifest[ _]unknown|the requested image was not found|name[ _]unknown|404 Not Found",
        e.RegistryError,
        "the registry has no {subject}",
        "check the name and the tag after the colon",
    ),
    build_row(
        "registry-rate",
        r"(?i)toomanyrequests|429 Too Many Requests",
        e.RegistryError,
        "the registry has served too many requests from here",
        "wait, or log in: `jupyter apptainer registry login HOST -u USER`",
    ),
    build_row(
        "registry-certificate",
        r"x509: (?P<why>[^;\n]+)",
        e.RegistryError,
        "the registry's certificate is not trusted here: {why}",
        "where a site or its proxy has a certificate authority of its own, name its file in the setting "
        "`ApptainerConfig.ca_bundle` or in SSL_CERT_FILE; for the whole machine: "
        "`sudo cp CA.crt /usr/local/share/ca-certificates/ && sudo update-ca-certificates`",
    ),
    build_row(
        "registry-refused",
        r"dial tcp (?P<address>\S+?): (?:connect: )?(?P<why>connection refused|i/o timeout|network is unreachable|no route to host)",
        e.RegistryError,
        "the registry of {subject} cannot be reached at {address}: {why}",
        _UNREACHABLE,
    ),
    build_row(
        "registry-unknown-host",
        r"lookup (?P<host>\S+)(?: on \S+)?: (?P<why>no such host|Temporary failure in name resolution|server misbehaving|.*timeout)",
        e.RegistryError,
        "the registry {host} is not known here: {why}",
        _UNREACHABLE,
    ),
    build_row(
        "registry-broken-off",
        r"(?:writing layer|reading blob|[Uu]nable to (?:[Dd]ownload|push) [Ii]mage[^\n]*|(?:Get|GET|Head|HEAD|Put|PUT|Patch|PATCH|Post|POST) "
        r"[^\n]*): (?:unexpected EOF|EOF|[^\n]*(?:connection reset by peer|broken pipe|TLS handshake timeout))",
        e.RegistryError,
        "the connection to the registry broke off while {subject} was on its way",
        "try again: layers of a docker:// image that have arrived whole are not fetched again",
    ),
    build_row(
        "registry-not-sif",
        r"invalid layer mediatype: application/vnd\.(?:oci|docker)\.",
        e.RegistryError,
        "{subject} is an OCI image and no SIF file",
        "write docker:// in place of oras://",
    ),
    build_row(
        "registry-not-oci",
        r"no extractable OCI/Docker tar layers found in this image",
        e.RegistryError,
        "{subject} is a SIF file and no OCI image",
        "write oras:// in place of docker://",
    ),
    build_row(
        "archive-not-whole",
        r"loading tar component \"(?P<part>manifest\.json)\": file does not exist",
        e.ImageInvalid,
        "{subject} has no {part}, so it is no archive of Docker's",
        "an archive in the OCI layout is named oci-archive:FILE",
    ),
    build_row(
        "registry-library",
        r"no default remote with library client in use",
        e.RegistryError,
        "library:// needs a library server, and none is set up",
        "use a docker:// or oras:// name, or `apptainer remote add`",
    ),
    build_row(
        "registry-reference",
        r"could not parse reference: (?P<name>.+)|Unsupported transport type: (?P<transport>.+)",
        e.RegistryError,
        "{subject} is no name that a registry could have",
        "write `docker://HOST/NAME:TAG` or `oras://HOST/NAME:TAG`",
    ),
    build_row(
        "pull-exists",
        r'Image file already exists: "(?P<path>.+?)" - will not overwrite',
        e.RegistryError,
        "the file {path} exists already",
        "choose another name, or add `--force`",
    ),
    build_row(
        "build-section",
        r"while running %(?P<section>\w+) section: exit status (?P<status>\d+)|failed to execute %(?P<test>test) script",
        e.BuildError,
        "the build of {subject} failed: a script in its definition file ended with an error",
        "the last lines below are the script's; it stops at the first command that fails",
    ),
    build_row(
        "build-sections",
        r"invalid section\(s\) specified: (?P<section>.+)",
        e.BuildError,
        "the definition file has a section that does not exist: {section}",
        "known ones: setup, files, appinstall, post, test, environment, startscript, runscript, labels, help, arguments",
    ),
    build_row(
        "build-source",
        r"invalid build source (?P<source>\S+)",
        e.BuildError,
        "the definition file has an unknown bootstrap agent: {source}",
        "write `Bootstrap: docker`, `localimage` or `debootstrap`",
    ),
    build_row(
        "build-header",
        r"no bootstrap specification found|multiple stages detected, all must have headers",
        e.BuildError,
        "the definition file does not begin with a `Bootstrap:` line",
        "begin it with `Bootstrap: docker` and `From: debian:12`, for example",
    ),
    build_row(
        "build-variable",
        r"build var (?P<name>\S+) is not defined",
        e.BuildError,
        "the definition file uses a variable that was not given: {name}",
        "add `--build-arg {name}=VALUE`",
    ),
    build_row(
        "build-unused",
        r"unused build args: (?P<names>.+)",
        e.BuildError,
        "the definition file does not use these variables: {names}",
        "leave out their `--build-arg`",
    ),
    build_row(
        "build-exists",
        r"build target '(?P<path>.+?)' already exists",
        e.BuildError,
        "{path} exists already",
        "choose another name, or add `--force`",
    ),
    build_row(
        "build-definition",
        r"unable to open file (?P<path>.+?): open .*: (?P<why>no such file or directory|permission denied)",
        e.BuildError,
        "the definition file {path} cannot be read: {why}",
        "check the path: `ls -l {path}`",
    ),
    build_row(
        "build-target-folder",
        r"while creating container: open (?P<path>.+?): (?P<why>no such file or directory|permission denied)",
        e.BuildError,
        "the image cannot be written to {path}: {why}",
        'create its folder first: `mkdir -p "$(dirname {path})"`',
    ),
    build_row(
        "flag",
        r"unknown (?:shorthand )?flag: (?P<flag>.+)",
        e.CommandError,
        "the engine does not know the option {flag}",
        "check `extra_flags`, and the engine's version: `jupyter apptainer engine info`",
    ),
)
