"""Broken videos, annotations, manifests and frame stores."""

import json
import wave
from collections.abc import Callable

import lmdb
import numpy as np
import pandas as pd

from ssp.data.frames import META
from ssp.data.manifest import manifest_hash
from tests.robustness.bench import CELL, Bench
from tests.robustness.corpus import STUDY, SWEEP, Case, removed, truncated, written
from tests.unit.made_videos import scene, write_video

MANIFEST = "data manifest --dataset ucf101"
FRAMES = "data frames --dataset ucf101 --shard 0"
# A command takes back its own older output before it starts: a half-new, half-old state must not look finished.
OLD_MANIFEST = ("data/ucf101/manifest.parquet", "data/ucf101/manifest.report.json")
OLD_SHARD = ("data/ucf101/frames/shard-0.lmdb", "data/ucf101/frames/shard-0.json")


# -- videos ----------------------------------------------------------------------------------------------------------


def _predict(name: str) -> str:
    return f"predict {name} {CELL}"


def _cut(suffix: str, codec: str, share: float) -> Callable[[Bench], object]:
    def damage(bench: Bench) -> None:
        write_video(bench / f"clip.{suffix}", scene(40, 64, 48), codec)
        bench.truncate(f"clip.{suffix}", share)

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


def _one_cut_off(bench: Bench) -> None:
    bench.truncate(min((bench / "data/ucf101/videos").rglob("*.avi")).relative_to(bench.folder).as_posix(), 0.7)


def _vanished(bench: Bench) -> str:
    path = min((bench / "data/ucf101/videos").rglob("*.avi"))
    path.unlink()
    return path.name


VIDEOS = [
    Case("video: empty", written("clip.avi", b""), _predict("clip.avi"), ("clip.avi: cannot be decoded",), heals=False),
    Case(
        "video: text",
        written("clip.mp4", "no video\n" * 99),
        _predict("clip.mp4"),
        ("clip.mp4: cannot be decoded",),
        heals=False,
    ),
    *(
        Case(
            f"video: {name} cut off",
            _cut(name, codec, share),
            _predict(f"clip.{name}"),
            (f"clip.{name}: {says}",),
            heals=False,
        )
        for name, codec, share, says in (
            ("avi", "mpeg4", 0.7, "cut off, "),
            ("mp4", "libx264", 0.5, "cannot be decoded"),
            ("mkv", "libx264", 0.7, "cut off, "),
            ("webm", "libvpx-vp9", 0.9, "cut off, "),
        )
    ),
    Case("video: sound alone", _sound, _predict("clip.wav"), ("clip.wav: holds no video stream",), heals=False),
    Case("video: no frames", _no_frames, _predict("clip.avi"), ("clip.avi: holds no decodable frame",), heals=False),
    Case("video: missing", lambda bench: None, _predict("clip.avi"), ("clip.avi: no such file",), heals=False),
    Case(
        "video: a folder",
        lambda b: (b / "clip.avi").mkdir(),
        _predict("clip.avi"),
        ("clip.avi: no video below it",),
        heals=False,
    ),
    Case(
        "videos: too many broken",
        _half_of_the_videos_broken,
        FRAMES,
        ("ucf101: 20 of 40 videos of shard 0 cannot be decoded", "frames.max_broken"),
        OLD_SHARD,
    ),
    Case(
        "videos: one cut off",
        _one_cut_off,
        FRAMES,
        ("ucf101: 1 of 40 videos of shard 0 cannot be decoded (", "frames.max_broken"),
        OLD_SHARD,
    ),
    Case(
        "videos: one vanished",
        _vanished,
        MANIFEST,
        ("data/ucf101/videos/", ".avi: cannot be read (No such file or directory)"),
        OLD_MANIFEST,
    ),
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
        "classInd.txt: a class is there twice",
    ),
    annotation(
        "list of unpacked files cut off", truncated("data/ucf101/unpacked.json"), "unpacked.json: annotation cannot"
    ),
    annotation(
        "list of unpacked files of another form",
        written("data/ucf101/unpacked.json", "[1]"),
        "not a list of unpacked files",
    ),
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
    annotation("Breakfast: no videos", _tree("breakfast", {"readme.txt": "x"}), "videos: no video 'PNN/"),
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
    Case(
        "manifest: empty",
        written(PARQUET, ""),
        "data check",
        ("manifest.parquet: not a readable manifest",),
        heals=False,  # the check goes on to find that a class has one training video
    ),
    Case("manifest: missing", removed(PARQUET), FRAMES, ("manifest.parquet: no such file",)),
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
    Case("frames: empty", written(LMDB, ""), SWEEP, ("shard-0.lmdb: cannot be opened",), STUDY),
    Case("frames: cut off", truncated(LMDB, 0.3), SWEEP, ("shard-0.lmdb: cut off",), STUDY),
]
