"""What conda has that is no Python package, or is compiled against one: the packages of Debian and Ubuntu that are the same.

Their release decides on the versions, so a build compares them with what the recipe wants. What PyPI has as source alone is compiled
against the library of the system, in its version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# One project a line: the name that conda-forge has, and packages of Debian, the first of which has the project's version.
_TABLE = """
    autoconf autoconf
    automake automake
    bcftools bcftools
    bedtools bedtools
    bison bison
    boost libboost-all-dev
    bwa bwa
    bzip2 bzip2 libbz2-dev
    c-compiler gcc libc6-dev
    clang clang
    cmake cmake
    compilers gcc g++ gfortran libc6-dev
    curl curl libcurl4-openssl-dev
    cxx-compiler g++
    eigen libeigen3-dev
    ffmpeg ffmpeg
    fftw libfftw3-dev
    flex flex
    fortran-compiler gfortran
    gcc gcc libc6-dev
    gdb gdb
    geos libgeos-dev
    gfortran gfortran
    git git
    git-lfs git-lfs
    gmp libgmp-dev
    gnuplot gnuplot-nox
    graphviz graphviz
    gsl libgsl-dev
    gxx g++
    hdf5 libhdf5-dev hdf5-tools
    imagemagick imagemagick
    jq jq
    lapack liblapack-dev
    libgdal libgdal-dev gdal-bin
    libnetcdf libnetcdf-dev netcdf-bin
    libtool libtool
    llvm llvm
    make make
    metis libmetis-dev
    mpfr libmpfr-dev
    mpich mpich libmpich-dev
    nano nano
    ninja ninja-build
    nodejs nodejs npm
    openblas libopenblas-dev
    openmpi openmpi-bin libopenmpi-dev
    openssl openssl libssl-dev
    pandoc pandoc
    parallel parallel
    pkg-config pkg-config
    proj libproj-dev proj-bin
    r-base r-base
    rsync rsync
    samtools samtools
    scotch libscotch-dev
    sqlite sqlite3
    suitesparse libsuitesparse-dev
    swig swig
    tmux tmux
    tree tree
    unzip unzip
    vim vim
    wget wget
    xz xz-utils liblzma-dev
    zip zip
    zlib zlib1g-dev
    """
_SAME_AS = {
    "boost-cpp": "boost",
    "libboost-devel": "boost",
    "gcc_linux-64": "gcc",
    "gfortran_linux-64": "gfortran",
    "gxx_linux-64": "gxx",
    "libopenblas": "openblas",
}


@dataclass(frozen=True)
class DebianPackages:
    """apt: packages of Debian, the first of which has the version. pip: what PyPI has as source, compiled against the first."""

    apt: tuple[str, ...]
    pip: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)


_PETSC = {"PETSC_DIR": "/usr/lib/petsc"}
_SLEPC = {**_PETSC, "SLEPC_DIR": "/usr/lib/slepc"}
_COMPILER = ("gcc", "libc6-dev")
_PACKAGES = {
    **{name: DebianPackages(tuple(apt)) for name, *apt in map(str.split, _TABLE.strip().splitlines())},
    "petsc": DebianPackages(("libpetsc-real-dev",), variables=_PETSC),
    "petsc4py": DebianPackages(("libpetsc-real-dev", *_COMPILER), "petsc4py", _PETSC),
    "slepc": DebianPackages(("libslepc-real-dev",), variables=_SLEPC),
    "slepc4py": DebianPackages(("libslepc-real-dev", *_COMPILER), "slepc4py", _SLEPC),
}


@dataclass
class SystemPackages:
    """What the system adds to an environment. apt: names of packages.

    wanted: (name in the recipe, package of Debian, versions as pip writes them). fitted: (name on PyPI, package of Debian).
    variables: for the build and the finished image.
    """

    apt: list[str] = field(default_factory=list)
    wanted: list[tuple[str, str, str]] = field(default_factory=list)
    fitted: list[tuple[str, str]] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, found: DebianPackages, specifier: str) -> None:
        """Add a package of conda that Debian has."""
        self.add_apt(found.apt)
        self.variables |= found.variables
        if specifier:
            self.wanted.append((name, found.apt[0], specifier))
        if found.pip:
            self.fitted.append((found.pip, found.apt[0]))

    def add_apt(self, names: Sequence[str]) -> None:
        """Add packages of Debian, each once."""
        self.apt += [name for name in names if name not in self.apt]


def find_packages(name: str) -> DebianPackages | None:
    """Return what Debian has of a package of conda; None where nothing is known."""
    return _PACKAGES.get(_SAME_AS.get(name, name))
