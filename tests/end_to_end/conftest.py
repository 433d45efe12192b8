"""One photograph, and the command line run in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Ran, Run
from PIL import Image

from limn import cli


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the signing key and the record of unmarked pictures out of the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        if "LIMN_HOME" not in os.environ:
            patch.setenv("LIMN_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `limn ARGS` in this process."""

    def limn(*args: object) -> Ran:
        capsys.readouterr()
        code = cli.main([str(arg) for arg in args])
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return limn


@pytest.fixture(scope="session")
def astronaut() -> Image.Image:
    """Eileen Collins (NASA, public domain), 512 x 512."""
    from skimage.data import astronaut

    return Image.fromarray(astronaut())


@pytest.fixture(scope="session")
def photo(astronaut: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    astronaut.save(path)
    return path
