"""Where the files of a dataset lie: a folder, a zip, or WebDataset shards, all read by name and in any order.

Shards are plain tar files, so tarfile's index (where each member begins, how long it is) is all that is needed to read one member at
random. The webdataset package streams them instead, and shuffles what passes by: its order depends on how far a run has come, where
ours is a function of (seed, step) and a resumed run sees what it would have seen. Hence no dependency on it.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from limn.errors import InputError

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".gif"})
TABLES = ("labels.csv", "dataset.json", "list_attr_celeba.txt", "list_attr_celeba.csv")  # at the top, or one folder down


@dataclass(frozen=True)
class Source:
    """The files of a dataset by name; `read` may be called from several threads."""

    path: Path
    names: tuple[str, ...]  # of the pictures, sorted
    others: tuple[str, ...]  # label files and whatever else lies there
    read: Callable[[str], bytes]  # InputError naming the file where it cannot be
    stamps: Mapping[str, str]  # name -> what changes when the file does
    shards: bool = False  # in shards a picture's label lies beside it, under the same key

    def title(self, name: str) -> str:
        """Return how an error names a file."""
        return f"{self.path}: {name}"


def open_source(path: str | Path) -> Source:
    """List a folder of pictures, a zip, a tar, a folder of tars, or a pattern of tars (`a-*.tar`, `a-%06d.tar`, `a-{000..012}.tar`)."""
    path = Path(path).expanduser()
    if re.search(r"[*?]|%0?\d*d|\{\d+\.\.\d+\}", path.name):
        return _shards(path, _expanded(path))
    if path.is_dir():
        tars = sorted(path.glob("*.tar"))
        found = _folder(path)
        return _shards(path, tars) if tars and not found.names else found
    if not path.exists():
        raise InputError(f"there is no folder, zip or shard {path}: check the name")
    if zipfile.is_zipfile(path):
        return _zip(path)
    if path.suffix == ".tar":
        return _shards(path, [path])
    raise InputError(f"{path} is neither a folder nor a zip of pictures, nor WebDataset shards (uncompressed .tar)")


def is_picture(name: str) -> bool:
    """Whether a name is a picture's by its suffix, and no hidden file."""
    return PurePosixPath(name).suffix.lower() in PICTURES and not _hidden(name)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _source(path: Path, stamps: Mapping[str, str], read: Callable[[str], bytes], shards: bool = False) -> Source:
    names = sorted(name for name in stamps if not _hidden(name))
    pictures = tuple(name for name in names if is_picture(name))
    return Source(path, pictures, tuple(name for name in names if not is_picture(name)), read, stamps, shards)


def _folder(path: Path) -> Source:
    stamps = {}
    for file in path.rglob("*"):
        if file.is_file():
            facts = file.stat()
            stamps[file.relative_to(path).as_posix()] = f"{facts.st_size}:{facts.st_mtime_ns}"
    return _source(path, stamps, partial(_from_folder, path))


def _from_folder(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {name}: cannot be read ({error.strerror}); check the file and its rights") from error


def _zip(path: Path) -> Source:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path} is a damaged zip ({error}): make it anew") from error
    stamps = {info.filename: f"{info.file_size}:{info.CRC}" for info in archive.infolist() if not info.is_dir()}
    return _source(path, stamps, partial(_from_zip, path, archive))


def _from_zip(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
        raise InputError(f"{path}: {name}: cannot be read from the zip ({error}); pack it anew") from error
    except Exception as error:  # zlib.error, lzma.LZMAError: of whichever method the zip is compressed by
        if type(error).__module__ not in {"zlib", "_lzma"}:
            raise
        raise InputError(f"{path}: {name}: is damaged in the zip ({error}); pack it anew") from error


def _expanded(path: Path) -> list[Path]:
    """Return the shards that a pattern means; those of a numbered range must all be there."""
    numbered = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", path.name)
    if numbered:
        before, first, last, after = numbered.groups()
        found = [path.with_name(f"{before}{number:0{len(first)}}{after}") for number in range(int(first), int(last) + 1)]
    else:
        found = sorted(path.parent.glob(re.sub(r"%0?\d*d", "*", path.name)))
    missing = [shard.name for shard in found if not shard.is_file()]
    if missing or not found:
        raise InputError(f"{path}: there is no shard {', '.join(missing[:3]) or 'of that pattern'}: check the name")
    return found


@dataclass(frozen=True)
class _Member:
    """Where a file lies in its shard."""

    shard: Path
    name: str
    start: int
    size: int


def _shards(path: Path, tars: Iterable[Path]) -> Source:
    members = [member for tar in tars for member in _members(tar)]
    twice = any(count > 1 for count in Counter(member.name for member in members).values())
    where = {f"{member.shard.stem}/{member.name}" if twice else member.name: member for member in members}
    stamps = {name: f"{member.shard.stat().st_mtime_ns}:{member.start}:{member.size}" for name, member in where.items()}
    return _source(path, stamps, partial(_from_shard, where), shards=True)


def _members(tar: Path) -> list[_Member]:
    try:
        with tarfile.open(tar, "r:") as archive:
            return [_Member(tar, item.name.removeprefix("./"), item.offset_data, item.size) for item in archive if item.isreg()]
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{tar} is no whole uncompressed tar ({error}): make it anew, `limn data pack` does") from error


def _from_shard(where: Mapping[str, _Member], name: str) -> bytes:
    member = where[name]
    with member.shard.open("rb") as file:
        file.seek(member.start)
        data = file.read(member.size)
    if len(data) < member.size:
        raise InputError(f"{member.shard}: {name}: the shard ends within it; make it anew, `limn data pack` does")
    return data


def key_of(name: str) -> str:
    """Return the WebDataset key of a member: its path up to the first dot of its file name."""
    at = PurePosixPath(name)
    return str(at.with_name(at.name.split(".", 1)[0])) if "." in at.name.lstrip(".") else name
