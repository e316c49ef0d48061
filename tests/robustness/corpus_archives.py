"""Broken archives: hostile, truncated, of another kind, or not to be had."""

import gzip
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable

from tests.robustness.bench import Bench
from tests.robustness.corpus import Case, removed, truncated, written

UNPACK = "data unpack --dataset ucf101"
FETCH = "data fetch --dataset ucf101"
ZIP = "data/ucf101/archives/UCF101.zip"
# A command takes back its own older output before it starts: a half-new, half-old state must not look finished.
FETCHED = "data/ucf101/fetched.done"  # an archive that cannot be unpacked is fetched again
OLD_VIDEOS = ("data/ucf101/unpacked.json", "data/ucf101/videos/*", FETCHED)
HTML = "<!DOCTYPE html><html><head><title>Log in</title></head><body>Please accept the licence</body></html>"


def _zip(members: Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def _tar(*specials: tuple[str, bytes, str], files: int = 3) -> bytes:
    """A tar with some plain files, then special members (name, type, link target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for i in range(files):
            info = tarfile.TarInfo(f"UCF-101/plain{i}.avi")
            info.size = 600
            archive.addfile(info, io.BytesIO(os.urandom(600)))
        for name, kind, target in specials:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return buffer.getvalue()


def _zip_link() -> bytes:
    info = zipfile.ZipInfo("UCF-101/out")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return _zip([(info, b"/etc/passwd")])


def _zip_of_windows() -> bytes:
    info = zipfile.ZipInfo("..\\..\\evil.avi")
    info.create_system = 0
    return _zip([(info, b"x")])


def _encrypted() -> bytes:
    content = bytearray(_zip([("secret.avi", b"x" * 99)]))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(signature) + flags] |= 1
    return bytes(content)


def _bomb() -> bytes:
    """300 MiB in 300 KB."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("bomb.avi", "w") as member,
    ):
        for _ in range(300):
            member.write(bytes(1 << 20))
    return buffer.getvalue()


def _flipped(bench: Bench) -> None:
    content = bytearray((bench / ZIP).read_bytes())
    content[len(content) // 3] ^= 0x40
    written(ZIP, bytes(content))(bench)


def _parts(bench: Bench) -> None:
    """Numbered parts of one tar.gz, the middle one missing."""
    files = [{"file": f"set-{i:02}"} for i in (0, 2)]
    bench.configure("datasets.ucf101.archives", files)
    content = gzip.compress(_tar())
    for i, part in enumerate(files):
        written(f"data/ucf101/archives/{part['file']}", content[i * 100 : (i + 1) * 100])(bench)


def _checked(**entry: object) -> Callable[[Bench], object]:
    """What the config says about the first archive."""

    def damage(bench: Bench) -> None:
        archives = [{"file": "UCF101.zip"} | entry, {"file": "UCF101TrainTestSplits-RecognitionTask.zip"}]
        bench.configure("datasets.ucf101.archives", archives)
        (bench / ZIP).unlink()

    return damage


def _web_page(bench: Bench) -> None:
    """An address that delivers a page instead of the archive."""
    written("page.html", HTML)(bench)
    bench.configure("datasets.ucf101.local")
    page = (bench / "page.html").as_uri()
    bench.configure(
        "datasets.ucf101.archives",
        [{"file": "UCF101.zip", "urls": [page]}, {"file": "UCF101TrainTestSplits-RecognitionTask.zip", "urls": [page]}],
    )
    (bench / ZIP).unlink()


def _damaged_download(bench: Bench) -> None:
    """A file of the right kind that no checksum tells from the right one."""
    bench.configure("datasets.ucf101.local")
    bench.configure("datasets.ucf101.archives", [{"file": "UCF101.zip", "urls": [(bench / ZIP).as_uri()]}])
    truncated(ZIP)(bench)


def _licence(bench: Bench) -> None:
    """Neither an address nor a folder."""
    bench.configure("datasets.ucf101.local")
    (bench / ZIP).unlink()


def hostile(name: str, content: bytes | Callable[[], bytes], *says: str) -> Case:
    """An archive that unpacking refuses."""

    def damage(bench: Bench) -> None:
        written(ZIP, content() if callable(content) else content)(bench)

    return Case(f"archive: {name}", damage, UNPACK, ("UCF101.zip", *says), OLD_VIDEOS)


ARCHIVES = [
    hostile("member that climbs out", lambda: _zip([("../../evil.avi", b"x")]), "'../../evil.avi' leaves the folder"),
    hostile("member that climbs out by backslashes", _zip_of_windows, "'../../evil.avi' leaves the folder"),
    hostile("member with an absolute name", lambda: _tar(("/tmp/evil.avi", tarfile.REGTYPE, "")), "absolute name"),
    hostile("symbolic link in a tar", lambda: _tar(("out", tarfile.SYMTYPE, "../../..")), "'out' is a link or device"),
    hostile("hard link in a tar", lambda: _tar(("out", tarfile.LNKTYPE, "/etc/passwd")), "'out' is a link or device"),
    hostile("device in a tar", lambda: _tar(("disk", tarfile.BLKTYPE, "")), "'disk' is a link or device"),
    hostile("pipe in a tar", lambda: _tar(("pipe", tarfile.FIFOTYPE, "")), "'pipe' is a link or device"),
    hostile("symbolic link in a zip", _zip_link, "'UCF-101/out' is a link or device"),
    hostile("encrypted", _encrypted, "'secret.avi' is encrypted"),
    hostile("bomb", _bomb, "expands beyond reason at 'bomb.avi'"),
    hostile("file where a folder must be", lambda: _zip([("a", b"x"), ("a/b.avi", b"y")]), "cannot be unpacked"),
    hostile(
        "a name twice", lambda: _tar(("UCF-101/plain0.avi", tarfile.REGTYPE, "")), "'UCF-101/plain0.avi' is there twice"
    ),
    hostile("empty file", b"", "neither zip"),
    hostile("text", b"this is no archive\n" * 9, "neither zip"),
    hostile("a web page under its name", HTML.encode(), "HTML page"),
    hostile("rar cut off", b"Rar!\x1a\x07\x01\x00" + bytes(99), "truncated or damaged"),
    hostile("tar.gz cut off", lambda: gzip.compress(_tar(files=20))[:-900], "truncated or damaged"),
    hostile("tar without its end", lambda: _tar()[: 4 * 512 + 1024], "truncated or damaged"),
    Case("archive: zip cut off", truncated(ZIP), UNPACK, ("UCF101.zip", "truncated or damaged"), OLD_VIDEOS),
    Case(
        "archive: damaged download",
        _damaged_download,
        UNPACK,
        ("UCF101.zip", "truncated or damaged", "kept as UCF101.zip.damaged, run again to fetch it"),
        (*OLD_VIDEOS, f"{ZIP}*"),
    ),
    Case("archive: bits flipped", _flipped, UNPACK, ("UCF101.zip", "truncated or damaged"), OLD_VIDEOS),
    Case("archive: missing", removed(ZIP), UNPACK, ("UCF101.zip: no such file",), (FETCHED,)),
    Case("archive: a part is missing", _parts, UNPACK, ("set: part 01 is missing",), OLD_VIDEOS),
    Case(
        "fetch: wrong sha256", _checked(sha256="0" * 64), FETCH, ("UCF101.zip", "wrong checksum, expected sha256 000")
    ),
    Case("fetch: wrong md5", _checked(md5="0" * 32), FETCH, ("UCF101.zip", "wrong checksum, expected md5 000")),
    Case("fetch: wrong size", _checked(size=12), FETCH, ("UCF101.zip", "wrong size, expected 12 bytes")),
    Case("fetch: not in its folder", removed("local/UCF101.zip"), FETCH, ("local: UCF101.zip not there",)),
    Case("fetch: a web page", _web_page, FETCH, ("UCF101.zip", "page.html: delivered an HTML page")),
    Case("fetch: licence", _licence, FETCH, ("UCF101.zip", "datasets.ucf101.local")),
]
