"""`limn parse`, and edits that stay within a parsed region."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import Run
from PIL import Image

import limn
from limn.faces import detect

pytestmark = pytest.mark.usefixtures("photo")


def test_labels_are_numbers_and_colours(run: Run, photo: Path, tmp_path: Path) -> None:
    done = run("parse", photo, "--out", tmp_path / "parts.png", "--overlay", tmp_path / "over.jpg", "--json").done
    drawn = Image.open(tmp_path / "parts.png")
    assert drawn.mode == "P" and drawn.size == (512, 512)
    shares = done["parts"]
    assert shares["background"] > 0.5 and 0.01 < shares["skin"] < 0.2 and shares["nose"] > 0
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    names = list(shares)
    assert len(np.unique(np.asarray(drawn))) == len(names)
    changed = np.abs(np.asarray(Image.open(photo).convert("RGB"), int) - np.asarray(Image.open(tmp_path / "over.jpg"), int)).max(-1)
    assert changed[np.asarray(drawn) > 0].mean() > 2 * changed[np.asarray(drawn) == 0].mean()


def test_a_region_is_a_mask(run: Run, photo: Path, tmp_path: Path) -> None:
    mesh = detect(Image.open(photo))[0].mesh
    assert mesh is not None
    sizes = []
    for grow in (0, 0.3):
        assert run("parse", photo, "--region", "mouth", "--grow", grow, "--feather", 0.1, "--out", tmp_path / "mouth.png").code == 0
        mask = np.asarray(Image.open(tmp_path / "mouth.png"))
        assert mask.shape == (512, 512) and mask[round(float(mesh[14, 1])), round(float(mesh[14, 0]))] == 255
        sizes.append(int((mask > 127).sum()))
    assert 100 < sizes[0] < sizes[1] < 6000
    assert limn.parse(photo, out=tmp_path / "again.png", region="mouth", parser="mesh").images[0].mode == "L"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--region", "moth", "--out", "x.png"), "did you mean 'mouth'"),
        (("--out", "x.jpg"), "name a .png"),
        (("--parser", "limn-mesh", "--out", "x.png"), "a face parser is needed"),
    ],
)
def test_what_cannot_be_done_is_said(
    run: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("parse", photo, *options)
    assert ran.code == 2 and said in ran.err and not list(tmp_path.glob("x.*"))


def test_an_edit_stays_within_its_region(run: Run, photo: Path, tmp_path: Path) -> None:
    done = run("edit", photo, "--set", "smile=2", "--region", "mouth", "--out", tmp_path / "out.png", "--json").done
    assert done["changes"] == {"smile": 2}
    before, after = (np.asarray(Image.open(path).convert("RGB"), int) for path in (photo, tmp_path / "out.png"))
    changed = np.abs(before - after).max(-1)
    mesh = detect(Image.open(photo))[0].mesh
    assert mesh is not None
    (x0, y0), (x1, y1) = mesh[[61, 291, 0, 17], :2].min(0).astype(int) - 25, mesh[[61, 291, 0, 17], :2].max(0).astype(int) + 25
    assert changed[y0:y1, x0:x1].max() > 20
    changed[y0:y1, x0:x1] = 0
    assert changed.max() == 0, "pixels away from the mouth were touched"
