"""The generated archives: layout, containers, codecs, and that nothing but the pictures tells classes apart."""

import hashlib
import io
import json
import re
import tarfile
import zipfile
from collections import Counter, defaultdict
from pathlib import PurePosixPath

import av
import numpy as np
import pytest

from ssp.config import Clips, Generate, parse_config
from ssp.data.sampling import test_indices as indices_of_test
from ssp.data.sampling import train_indices
from ssp.data.sources import Tree, read_listing
from ssp.data.synthetic import archives
from ssp.data.synthetic.encode import AVI, WEBM, encode
from ssp.data.synthetic.plans import SESSIONS, plan
from ssp.data.synthetic.scenes import CLASSES
from ssp.errors import ConfigError

ARCHIVES = {
    "hmdb51": ["hmdb51_org.zip", "test_train_splits.zip"],
    "ucf101": ["UCF101.zip", "UCF101TrainTestSplits-RecognitionTask.zip"],
    "ssv2": ["20bn-something-something-v2-00", "20bn-something-something-v2-01", "labels.zip"],
    "breakfast": ["BreakfastII_15fps_qvga_sync.tar.gz"],
}


def settings(source, folder, **changes):
    """A complete config of one small generated data set, as YAML would give it."""
    classes = CLASSES[source]
    generate = {
        "seed": 7,
        "train": 4 * classes,
        "test": 2 * classes,
        "size": [40, 32],
        "seconds": [0.7, 1.2],
        "fps": 12,
    }
    dataset = {
        "source": source,
        "expected": {"classes": classes, "train": 4 * classes, "test": 2 * classes},
        "generate": generate,
        "local": str(folder),
        "archives": [{"file": name} for name in ARCHIVES[source]],
        "frames": {"shards": 1},
        "clips": {"sampling": "sparse", "num_frames": 8},
        "checkpoint": "source",
        "recipe": {"epochs": 1, "batch_size": 4},
        "start": {"lr": 0.01},
    }
    return {
        "name": "test",
        "title": "test",
        "data_root": str(folder),
        "seeds": [0],
        "backbone": {
            "architecture": {"embed_dim": 16, "depth": 1, "patch_size": 8},
            "image_size": 32,
            "checkpoints": {"source": {"num_frames": 8, "local": "none.pth"}},
        },
        "datasets": {"demo": dataset | changes},
        "methods": {"linear": {}},
        "sweep": {"trials": 1},
    }


def planned_clips(source):
    return plan(source, Generate(**settings(source, "")["datasets"]["demo"]["generate"])).clips


def generate(source, folder, threads=1, **changes):
    data = settings(source, folder, **changes) | {"compute": {"data": {"threads": threads}}}
    return archives.generate_archives(parse_config(data, "test.yaml"), "demo")


def members(files):
    """Path -> bytes of everything in a data set's archives."""
    found = {}
    whole = b"".join(f.read_bytes() for f in files if re.search(r"-\d\d$|\.tar\.gz$", f.name))
    if whole:
        with tarfile.open(fileobj=io.BytesIO(whole), mode="r:gz") as archive:
            found |= {entry.name: archive.extractfile(entry).read() for entry in archive}
    for file in files:
        if file.suffix == ".zip":
            with zipfile.ZipFile(file) as archive:
                assert archive.testzip() is None
                found |= {name: archive.read(name) for name in archive.namelist()}
    return found


@pytest.fixture(scope="module", params=sorted(CLASSES))
def generated(request, tmp_path_factory):
    """(source, its archive files, their members)."""
    files = generate(request.param, tmp_path_factory.mktemp(request.param))
    return request.param, files, members(files)


def test_files_have_the_published_container_codec_and_frames(generated):
    source, files, found = generated
    assert [file.name for file in files] == ARCHIVES[source]
    assert [file.name for file in files[0].parent.iterdir() if file not in files] == []
    planned = {clip.path: clip for clip in planned_clips(source)}
    videos = {path: data for path, data in found.items() if path.endswith((".avi", ".webm"))}
    assert videos.keys() == planned.keys()
    for path, data in list(videos.items())[::7]:
        with av.open(io.BytesIO(data)) as container:
            stream = container.streams.video[0]
            codec, wanted = stream.codec_context.name, {".avi": "mpeg4", ".webm": "vp9"}[PurePosixPath(path).suffix]
            assert (codec, stream.width, stream.height, stream.average_rate) == (wanted, 40, 32, 12)
            assert sum(1 for _ in container.decode(video=0)) == planned[path].frames


def test_decord_reads_as_many_frames(generated, tmp_path):
    decord = pytest.importorskip("decord")
    _, _, found = generated
    path, data = next((path, data) for path, data in found.items() if path.endswith((".avi", ".webm")))
    file = tmp_path / PurePosixPath(path).name
    file.write_bytes(data)
    reader = decord.VideoReader(str(file))
    with av.open(str(file)) as container:
        ours = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    theirs = [reader.next().asnumpy() for _ in range(len(reader))]
    assert len(theirs) == len(ours)
    assert np.abs(np.stack(theirs).astype(int) - np.stack(ours)).mean() < 3


def test_annotation_has_the_published_form(generated):
    source, _, found = generated
    classes = CLASSES[source]
    train, test = 4 * classes, 2 * classes
    if source == "hmdb51":
        lists = {PurePosixPath(path).name: data.decode() for path, data in found.items() if path.endswith(".txt")}
        assert len(lists) == classes
        uses = Counter()
        for name, text in lists.items():
            folder = name.removesuffix("_test_split1.txt")
            for line in text.splitlines():
                clip, use = line.split()
                assert f"{folder}/{clip}" in found
                uses[use] += 1
        assert uses == {"1": train, "2": test, "0": classes}
    elif source == "ucf101":
        text = {
            path.rpartition("/")[2]: data.decode().splitlines() for path, data in found.items() if path.endswith(".txt")
        }
        names = dict(line.split() for line in text["classInd.txt"])
        assert list(names) == [str(number) for number in range(1, classes + 1)]
        for line in text["trainlist01.txt"]:
            clip, number = line.split()
            assert f"UCF-101/{clip}" in found
            assert clip.startswith(names[number] + "/v_" + names[number])
        assert all(f"UCF-101/{clip}" in found for clip in text["testlist01.txt"])
        assert (len(text["trainlist01.txt"]), len(text["testlist01.txt"])) == (train, test)
    elif source == "ssv2":
        data = {PurePosixPath(path).stem: json.loads(raw) for path, raw in found.items() if path.endswith(".json")}
        assert sorted(map(int, data["labels"].values())) == list(range(classes))
        assert (len(data["train"]), len(data["validation"])) == (train, test)
        for entry in data["train"] + data["validation"]:
            assert f"20bn-something-something-v2/{entry['id']}.webm" in found
            assert "[something]" in entry["template"]
            assert entry["template"].replace("[", "").replace("]", "") in data["labels"]
    else:
        pattern = r"BreakfastII_15fps_qvga_sync/P(\d\d)/(\w+)/P\1_([a-z]+)(_ch0)?\.avi"
        parts = [re.fullmatch(pattern, path) for path in found]
        assert all(parts)
        assert all((part[2] == "stereo") == bool(part[4]) for part in parts)
        assert len({part[3] for part in parts}) == classes
        assert Counter(int(part[1]) > 46 for part in parts) == {False: train, True: test}
        assert all(3 <= int(part[1]) <= 54 for part in parts)


def test_the_readers_of_the_published_layouts_agree(generated, tmp_path):
    source, _, found = generated
    for path, data in found.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    listing = read_listing(source, Tree(tmp_path, files), split=1)
    planned = {clip.path: clip for clip in planned_clips(source)}
    used = {path: clip for path, clip in planned.items() if clip.split != "unused"}
    assert len(listing.classes) == CLASSES[source]
    assert {entry.path for entry in listing.entries} == used.keys()
    assert listing.unused == planned.keys() - used.keys()
    labels = set()
    for entry in listing.entries:
        clip = used[entry.path]
        assert (entry.split, entry.group) == (clip.split, clip.group)
        labels.add((clip.label, entry.label))
    # The reader may number the classes otherwise, but one to one.
    assert len(labels) == len({ours for ours, _ in labels}) == len({theirs for _, theirs in labels}) == CLASSES[source]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_with_any_number_of_processes(tmp_path):
    for source in ("hmdb51", "ssv2"):
        digests = set()
        for threads in (1, 2):
            files = generate(source, tmp_path / f"{source}{threads}", threads)
            digests.add(tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in files))
        assert len(digests) == 1


DEMO = {"seed": 1, "train": 480, "test": 640, "size": (40, 32), "seconds": (1.2, 2.4), "fps": 12}


@pytest.mark.parametrize("source", sorted(CLASSES))
def test_groups_share_a_backdrop_and_never_straddle_train_and_test(source):
    scenes, sides = defaultdict(set), defaultdict(set)
    for clip in plan(source, Generate(**DEMO)).clips:
        scenes[clip.group].add(clip.scene)
        sides[clip.group].add(clip.split)
        # The group is what a reader of the published layout takes for it.
        path = PurePosixPath(clip.path)
        published = {
            "breakfast": path.parts[1],
            "ucf101": f"{path.parent.name}/{path.stem.rpartition('_')[0].rpartition('_')[2]}",
            "hmdb51": path.name.partition("_")[0],
            "ssv2": path.stem,
        }
        assert clip.group == published[source]
    assert all(len(found) == 1 for found in sides.values())
    several = {len(found) for found in scenes.values()} - {1}
    assert not several or (source == "breakfast" and max(several) <= len(SESSIONS))
    assert len(set.union(*scenes.values())) == sum(map(len, scenes.values()))  # no two groups share one


STAND_IN = {"hmdb51": 51, "ucf101": 101, "ssv2": 174, "breakfast": 10}


@pytest.mark.parametrize("source", sorted(STAND_IN))
def test_a_stand_in_lists_all_classes_and_has_videos_of_two(source, tmp_path):
    classes = STAND_IN[source]
    tests = classes if source == "breakfast" else 2
    made = DEMO | {"train": 4, "test": tests, "classes": classes}
    planned = plan(source, Generate(**made))
    for name, content in planned.annotations.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    files = [clip.path for clip in planned.clips] + list(planned.annotations)
    listing = read_listing(source, Tree(tmp_path, files), 1)
    assert len(listing.classes) == classes
    counts = Counter((entry.split, entry.label) for entry in listing.entries)
    trained = {label: count for (split, label), count in counts.items() if split == "train"}
    assert sorted(trained.values()) == [2, 2] and sum(counts.values()) == 4 + tests
    assert {clip.label for clip in planned.clips} <= set(range(CLASSES[source]))
    if source in ("ucf101", "ssv2"):  # numbered as listed
        assert set(trained) == {0, classes - 1}


def test_segment_sampling_of_ssv2_like_videos_takes_the_same_frames_both_ways():
    # Else what is left out is the end of a scene, or of its reverse the beginning, and middles are a frame apart: cues
    # that need no order.
    lengths = {clip.frames for clip in plan("ssv2", Generate(**DEMO)).clips}
    assert len(lengths) > 1
    for length in lengths:
        clips = Clips(sampling="sparse", num_frames=8)
        assert train_indices(length, clips, LastOfEachSegment())[-1] == length - 1
        middles = indices_of_test(length, clips, 0)
        assert (length - 1 - middles[::-1] == middles).all()


class LastOfEachSegment:
    """A generator that draws the highest number."""

    def integers(self, high, size):
        return np.full(size, high - 1)


@pytest.mark.parametrize("form", [AVI, WEBM], ids=["avi", "webm"])
def test_the_size_of_a_file_does_not_depend_on_what_it_shows(form):
    rng = np.random.default_rng(0)
    flat = np.full((10, 32, 40, 3), 90, np.uint8)
    busy = np.repeat(np.repeat(rng.integers(0, 255, (10, 8, 10, 3), dtype=np.uint8), 4, 1), 4, 2)
    sizes = [len(encode(clip, 12, form, fullness)) for clip in (flat, busy) for fullness in (0.0, 0.7)]
    assert sizes[:2] == sizes[2:]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("source", sorted(CLASSES))
def test_no_class_can_be_told_from_length_or_size(source):
    """A nearest-neighbour vote over (frames, bytes) is at chance; size is a function of frames and fullness alone."""
    clips = plan(source, Generate(**DEMO)).clips
    if source == "breakfast":  # all cameras of a take have its length: one clip a take
        clips = list({clip.take: clip for clip in clips}.values())
    labels = np.array([clip.label for clip in clips])
    looks = np.array([[clip.frames, clip.frames * (1 + clip.fullness)] for clip in clips])
    looks = (looks - looks.mean(0)) / looks.std(0)
    distance = ((looks[:, None] - looks[None]) ** 2).sum(-1)
    np.fill_diagonal(distance, np.inf)
    votes = labels[np.argsort(distance, axis=1)[:, :15]]
    guesses = np.array([np.bincount(vote, minlength=labels.max() + 1).argmax() for vote in votes])
    chance = np.bincount(labels).max() / len(labels)
    assert (guesses == labels).mean() < chance + 3 * np.sqrt(chance * (1 - chance) / len(labels))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"generate": None}, "datasets.demo"),
        ({"local": None}, "datasets.demo"),
        ({"expected": {"classes": 9, "train": 5, "test": 18}}, "datasets.demo.expected.train"),
        ({"expected": {"classes": 51, "train": 36, "test": 18}}, "datasets.demo.expected.classes"),
        ({"archives": [{"file": "one.zip"}]}, "datasets.demo.archives"),
        ({"archives": [{"file": "one.rar"}, {"file": "two.zip"}]}, "datasets.demo.archives"),
    ],
)
def test_a_config_that_contradicts_the_layout_is_one_clear_line(tmp_path, changes, names):
    with pytest.raises(ConfigError) as error:
        generate("hmdb51", tmp_path / "out", **changes)
    assert names in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    encoded = []

    def fails_late(*arguments):
        encoded.append(arguments)
        if len(encoded) % 8 == 0:
            raise RuntimeError("encoder broke")
        return encode(*arguments)

    monkeypatch.setattr(archives, "encode", fails_late)
    for source in ("hmdb51", "ssv2"):
        with pytest.raises(RuntimeError, match="encoder broke"):
            generate(source, tmp_path / source)
        assert list((tmp_path / source).iterdir()) == []
