"""Broken archives, videos, annotations, manifests and frame stores."""

import gzip
import io
import json
import os
import stat
import tarfile
import wave
import zipfile
from collections.abc import Callable, Iterable

import lmdb
import numpy as np
import pandas as pd

from ssp.data.frames import META
from ssp.data.manifest import manifest_hash
from tests.robustness.bench import CELL, Bench
from tests.robustness.corpus import STUDY, SWEEP, Case, removed, truncated, written
from tests.unit.made_videos import scene, write_video

UNPACK = "data unpack --dataset ucf101"
FETCH = "data fetch --dataset ucf101"
MANIFEST = "data manifest --dataset ucf101"
FRAMES = "data frames --dataset ucf101 --shard 0"
ZIP = "data/ucf101/archives/UCF101.zip"
# A command takes back its own older output before it starts: a half-new, half-old state must not look finished.
OLD_VIDEOS = ("data/ucf101/unpacked.json", "data/ucf101/videos/*")
OLD_MANIFEST = ("data/ucf101/manifest.parquet", "data/ucf101/manifest.report.json")
OLD_SHARD = ("data/ucf101/frames/shard-0.lmdb", "data/ucf101/frames/shard-0.json")
HTML = "<!DOCTYPE html><html><head><title>Log in</title></head><body>Please accept the licence</body></html>"


# -- archives --------------------------------------------------------------------------------------------------------


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


def _archive(content: bytes) -> Callable[[Bench], object]:
    return written(ZIP, content)


def _zip_link() -> bytes:
    info = zipfile.ZipInfo("UCF-101/out")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return _zip([(info, b"/etc/passwd")])


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
    Case("archive: bits flipped", _flipped, UNPACK, ("UCF101.zip", "truncated or damaged"), OLD_VIDEOS),
    Case("archive: missing", removed(ZIP), UNPACK, ("UCF101.zip: no such file",)),
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


# -- videos ----------------------------------------------------------------------------------------------------------


def _predict(name: str) -> str:
    return f"predict {name} {CELL}"


def _cut(suffix: str, codec: str, share: float) -> Callable[[Bench], object]:
    def damage(bench: Bench) -> None:
        write_video(bench / f"clip{suffix}", scene(40, 64, 48), codec)
        bench.truncate(f"clip{suffix}", share)

    return damage


def _sound(bench: Bench) -> None:
    with wave.open(str(bench / "clip.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.zeros(8000, np.int16).tobytes())


def _no_frames(bench: Bench) -> None:
    import av

    with av.open(str(bench / "clip.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()


def _half_of_the_videos_broken(bench: Bench) -> None:
    for path in sorted((bench / "data/ucf101/videos").rglob("*.avi"))[::2]:
        path.write_bytes(b"no video")


def _vanished(bench: Bench) -> str:
    path = min((bench / "data/ucf101/videos").rglob("*.avi"))
    path.unlink()
    return path.name


VIDEOS = [
    Case("video: empty", written("clip.avi", b""), _predict("clip.avi"), ("clip.avi",), heals=False),
    Case("video: text", written("clip.mp4", "no video\n" * 99), _predict("clip.mp4"), ("clip.mp4",), heals=False),
    Case("video: avi cut off", _cut(".avi", "mpeg4", 0.5), _predict("clip.avi"), ("clip.avi",), heals=False),
    Case("video: mp4 cut off", _cut(".mp4", "libx264", 0.5), _predict("clip.mp4"), ("clip.mp4",), heals=False),
    Case("video: sound alone", _sound, _predict("clip.wav"), ("clip.wav: holds no video stream",), heals=False),
    Case("video: no frames", _no_frames, _predict("clip.avi"), ("clip.avi",), heals=False),
    Case("video: missing", lambda bench: None, _predict("clip.avi"), ("clip.avi: no such file",), heals=False),
    Case("video: a folder", lambda b: (b / "clip.avi").mkdir(), _predict("clip.avi"), ("clip.avi",), heals=False),
    Case(
        "videos: too many broken",
        _half_of_the_videos_broken,
        FRAMES,
        ("ucf101: 20 of 40 videos of shard 0 cannot be decoded", "frames.max_broken"),
        OLD_SHARD,
    ),
    Case("videos: one vanished", _vanished, MANIFEST, ("data/ucf101/videos/", ".avi"), OLD_MANIFEST),
]


# -- annotation ------------------------------------------------------------------------------------------------------

LISTS = "data/ucf101/videos/ucfTrainTestlist"


def _edited(path: str, edit: Callable[[str], str]) -> Callable[[Bench], object]:
    return lambda bench: written(path, edit((bench / path).read_text()))(bench)


def _unlisted(path: str) -> Callable[[Bench], object]:
    """A file that is in no archive: not unpacked, and not in the list of what was."""

    def damage(bench: Bench) -> None:
        (bench / "data/ucf101/videos" / path).unlink()
        listing = json.loads((bench / "data/ucf101/unpacked.json").read_text())
        listing["members"] = [member for member in listing["members"] if member[0] != path]
        written("data/ucf101/unpacked.json", json.dumps(listing))(bench)

    return damage


def _tree(source: str, files: dict[str, str]) -> Callable[[Bench], object]:
    """The unpacked files of another data set."""

    def damage(bench: Bench) -> None:
        bench.configure("datasets.ucf101.source", source)
        for name, text in files.items():
            written(f"data/ucf101/videos/{name}", text)(bench)
        members = [[name, len(text)] for name, text in files.items()]
        written("data/ucf101/unpacked.json", json.dumps({"members": members}))(bench)

    return damage


_LABELS = json.dumps({"Moving something": "0", "Dropping something": "1"})
_ROW = {"id": "7", "label": "moving a cup", "template": "Moving [something]"}


def _ssv2(**files: str) -> Callable[[Bench], object]:
    whole = {"labels": _LABELS, "train": json.dumps([_ROW]), "validation": json.dumps([_ROW | {"id": "8"}])}
    return _tree("ssv2", {f"labels/{name}.json": text for name, text in (whole | files).items()})


def annotation(name: str, damage: Callable[[Bench], object], *says: str, heals: bool = True) -> Case:
    """Annotation that the manifest refuses."""
    return Case(f"annotation: {name}", damage, MANIFEST, says, OLD_MANIFEST, heals)


def _first_line(text: str) -> str:
    return text.splitlines()[0]


ANNOTATIONS = [
    annotation("list missing", _unlisted("ucfTrainTestlist/trainlist01.txt"), "no annotation file 'trainlist01.txt'"),
    annotation("list vanished", removed(f"{LISTS}/trainlist01.txt"), "trainlist01.txt: annotation cannot be read"),
    annotation("list empty", written(f"{LISTS}/testlist01.txt", ""), "ucf101: 0 test, expected 20"),
    annotation("not UTF-8", written(f"{LISTS}/testlist01.txt", b"\xff\xfe\x00"), "testlist01.txt", "cannot be read"),
    annotation(
        "video that was not unpacked",
        _edited(f"{LISTS}/testlist01.txt", lambda text: text.replace("_c01", "_c77", 1)),
        "1 listed videos are not among the unpacked files",
        "_c77.avi'",
    ),
    annotation(
        "video twice",
        _edited(f"{LISTS}/testlist01.txt", lambda text: text + _first_line(text) + "\n"),
        "is listed 2 times",
        ".avi'",
    ),
    annotation(
        "unknown class",
        _edited(f"{LISTS}/testlist01.txt", lambda text: text + "Juggling/v_Juggling_g01_c01.avi\n"),
        "testlist01.txt: line 21 names no clip of a known class",
    ),
    annotation(
        "index of wrong columns", written(f"{LISTS}/classInd.txt", "a,b,c\n"), "classInd.txt", "<number> <class>"
    ),
    annotation(
        "label outside the classes",
        _edited(f"{LISTS}/classInd.txt", lambda text: text.replace("10 ", "11 ")),
        "classInd.txt",
        "1 to 10",
    ),
    annotation(
        "class twice",
        _edited(f"{LISTS}/classInd.txt", lambda text: f"1 {text.split()[3]}\n" + text.split("\n", 1)[1]),
        "classInd.txt",
    ),
    annotation("list of unpacked files cut off", truncated("data/ucf101/unpacked.json"), "unpacked.json"),
    annotation("list of unpacked files of another form", written("data/ucf101/unpacked.json", "[1]"), "unpacked.json"),
    annotation(
        "HMDB51: malformed line",
        _tree("hmdb51", {"wave_test_split1.txt": "Film_wave_u_cm_np1_fr_med_0.avi 7\n"}),
        "wave_test_split1.txt: line 1 is not",
        heals=True,
    ),
    annotation("HMDB51: no lists", _tree("hmdb51", {"wave/a.avi": "x"}), "no split list '<class>_test_split1.txt'"),
    annotation("SSv2: index not JSON", _ssv2(labels="{"), "labels.json: annotation cannot be read"),
    annotation("SSv2: label outside", _ssv2(labels='{"Moving something": "4"}'), "labels.json: not a map of templates"),
    annotation(
        "SSv2: unknown template",
        _ssv2(train=json.dumps([_ROW | {"template": "Eating [something]"}])),
        "train.json: template of entry 0",
        "'Eating something'",
    ),
    annotation("SSv2: list without ids", _ssv2(train='[{"label": "x"}]'), "train.json: not a list of {id, template}"),
    annotation("SSv2: videos missing", _ssv2(), "2 listed videos are not among the unpacked files", "'7.webm'"),
    annotation("Breakfast: no videos", _tree("breakfast", {"readme.txt": "x"}), "datasets.breakfast.archives"),
]


# -- manifests and frame stores --------------------------------------------------------------------------------------

PARQUET = "data/ucf101/manifest.parquet"
LMDB = "data/ucf101/frames/shard-0.lmdb"


def _other_manifest(edit: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Bench], object]:
    def damage(bench: Bench) -> None:
        edit(pd.read_parquet(bench / PARQUET)).to_parquet(bench / PARQUET, index=False)

    return damage


def _renamed(manifest: pd.DataFrame) -> pd.DataFrame:
    return manifest.assign(id="other/" + manifest["id"])


def _label_outside(bench: Bench) -> None:
    """In the manifest, and in frames that were extracted from it."""
    _other_manifest(lambda manifest: manifest.assign(label=manifest["label"].replace(9, 99)))(bench)
    with lmdb.open(str(bench / LMDB), subdir=False, lock=False) as environment, environment.begin(write=True) as store:
        meta = json.loads(store.get(META)) | {"manifest": manifest_hash(bench / PARQUET)}
        store.put(META, json.dumps(meta).encode())


MANIFESTS = [
    Case("manifest: cut off", truncated(PARQUET), FRAMES, ("manifest.parquet: not a readable manifest",)),
    Case("manifest: text", written(PARQUET, "no parquet"), SWEEP, ("manifest.parquet: not a readable manifest",)),
    Case("manifest: empty", written(PARQUET, ""), "data check", ("manifest.parquet: not a readable manifest",)),
    Case("manifest: missing", removed(PARQUET), FRAMES, ("manifest.parquet: not a readable manifest",)),
    Case(
        "manifest: no column 'group'",
        _other_manifest(lambda m: m.drop(columns="group")),
        SWEEP,
        ("manifest.parquet", "'group'"),
    ),
    Case(
        "manifest: labels that are no numbers",
        _other_manifest(lambda m: m.assign(label="x")),
        SWEEP,
        ("manifest.parquet: not a readable manifest",),
    ),
    Case(
        "manifest: another data set's",
        _other_manifest(_renamed),
        SWEEP,
        ("data/ucf101/frames: made from another manifest",),
        STUDY,
    ),
    Case(
        "manifest: a label outside the classes",
        _label_outside,
        SWEEP,
        ("manifest.parquet: a label is outside the 10 classes",),
        STUDY,
    ),
    Case("frames: missing", removed(LMDB), SWEEP, ("shard-0.lmdb: cannot be opened",), STUDY),
    Case("frames: text", written(LMDB, "no database\n" * 999), SWEEP, ("shard-0.lmdb: cannot be opened",), STUDY),
    Case("frames: empty", written(LMDB, ""), SWEEP, ("shard-0.lmdb",), STUDY),
    Case("frames: cut off", truncated(LMDB, 0.3), SWEEP, ("shard-0.lmdb",), STUDY),
]
