"""Every command and every Python example of the documentation is parsed or run."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import typer
import yaml
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

import ssp
from ssp.backbone.checkpoint import save_tuned
from ssp.cli import app
from ssp.cli.common import load
from ssp.data.manifest import manifest_hash
from ssp.files import write_text
from ssp.jobs.cell import new_model
from ssp.paths import Paths
from ssp.tables import write_tables
from tests.docs.reading import PAGES, ROOT, blocks, commands, name
from tests.unit.made_records import make_config, write_all
from tests.unit.made_videos import scene, write_video

COMMANDS = sorted({(name(page), whole, *words) for page in PAGES for words, whole in commands(page)})
LANGUAGES = {"sh", "python", "toml", "yaml", "mermaid", ""}
SSP = typer.main.get_command(app)
MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def any_file(path):
    return path.isupper() or path.startswith("my")


def there(path):
    """The repository has the file; CONFIG and my.yaml stand for any, and what a run makes is not there yet."""
    made = path.startswith(("results/", "data/", "/")) or ("/" not in path and not Path(path).suffix)
    assert any_file(path) or made or Path(path).exists(), f"{path}: no such file"


def parse_ssp(words, whole):
    command, depth = SSP, 0
    while depth < len(words) and hasattr(command, "commands"):
        assert words[depth] in command.commands, f"ssp has no command {words[depth]}"
        command, depth = command.commands[words[depth]], depth + 1
    given = [word for word in words[depth:] if word != "--help"]
    if whole:
        named = command.make_context("ssp", list(given)).params
        if isinstance(named.get("config"), Path) and not any_file(str(named["config"])):
            load(*(named.get(name) for name in ("config", "dataset", "method", "checkpoint")))
    else:
        known = {option for parameter in getattr(command, "params", []) for option in parameter.opts}
        assert {word for word in given if word.startswith("--")} <= known, f"options of ssp {words[0]}: {known}"
    for word in given:
        if word.endswith((".yaml", ".yml")):
            there(word)
    if words[0] == "check" and given and not any_file(given[0]):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output


def parse_snakemake(words, whole):
    from snakemake.cli import get_argument_parser

    given = get_argument_parser().parse_args(words)
    for path in map(str, given.configfile or []):
        there(path)
    if given.workflow_profile:
        assert (ROOT / given.workflow_profile / "config.yaml").is_file() or (
            ROOT / "workflow" / given.workflow_profile / "config.yaml"
        ).is_file()


def parse_make(words, whole):
    for word in words:
        variable, equals, _ = word.partition("=")
        pattern = rf"^{variable} *[:?]?=" if equals else rf"^{word}:"
        assert re.search(pattern, MAKEFILE, re.MULTILINE), f"the Makefile has no {variable}"


def parse_python(words, whole):
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]), f"no module {words[1]}"
        if words[1] == "ssp" and len(words) > 2:
            parse_ssp(words[2:], whole)
    else:
        there(words[0])


def parse_torchrun(words, whole):
    from torch.distributed.run import get_args_parser

    given = get_args_parser().parse_args(words)
    assert given.module
    parse_python(["-m", given.training_script, *given.training_script_args], whole)


def parse_mlflow(words, whole):
    from mlflow.cli import cli

    command = cli.get_command(None, words[0])
    assert command, f"mlflow has no command {words[0]}"
    command.make_context("mlflow", words[1:])


def parse_other(words, whole):
    for word in words:
        if "." in word[1:] and not word.startswith("-"):
            there(word)


def parse_container(words, whole):
    """Neither program is here: what they build from is there, and what follows the image is a command of Snakemake."""
    for path in (word for word in words if word.endswith(".def")):
        there(path)
    if words[0] == "run":
        image = next(place for place, word in enumerate(words) if word in ("ssp", "ssp.sif"))
        parse_snakemake(words[image + 1 :], whole)


PARSERS = {
    "ssp": parse_ssp,
    "snakemake": parse_snakemake,
    "make": parse_make,
    "python": parse_python,
    "torchrun": parse_torchrun,
    "mlflow": parse_mlflow,
    "pip": parse_other,
    "conda": parse_other,
    "bash": parse_other,
    "source": lambda words, whole: None,
    "git": lambda words, whole: None,
    "pytest": parse_other,
    "docker": parse_container,
    "apptainer": parse_container,
    "ruff": parse_other,
    "snakefmt": parse_other,
    "pre-commit": lambda words, whole: None,
    ".ci/run": lambda words, whole: there(".ci/run"),
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command[0]}: {' '.join(command[2:])[:90]}")
def test_a_command_of_the_documentation_is_one(command):
    page, whole, program, *words = command
    assert program in PARSERS, f"{page}: this test does not know how to check `{program}`"
    try:
        PARSERS[program](words, whole)
    except SystemExit as end:  # how argparse says no
        raise AssertionError(f"{page}: not a command: {program} {' '.join(words)}") from end


def test_commands_are_found():
    assert {"ssp", "snakemake", "make", "python"} <= {program for _, _, program, *_ in COMMANDS}
    assert len(COMMANDS) > 60


@pytest.mark.parametrize(
    "wrong",
    [
        "ssp no-such-command",
        "ssp sweep --confg config/demo.yaml --dataset ssv2 --method ssp",
        "ssp sweep --config config/demo.yaml --dataset ssv2",
        "ssp sweep --config config/no_such.yaml --dataset ssv2 --method ssp",
        "ssp sweep --config config/demo.yaml --dataset no_such --method ssp",
        "ssp params --format html",
        "snakemake --cores all --no-such-option",
        "snakemake --cores all --configfile config/no_such.yaml",
        "snakemake --cores all --workflow-profile profiles/no_such",
        "make dmeo",
        "make test ARG=1",
        "python workflow/scripts/no_such.py",
        "python -m ssp.no_such",
    ],
)
def test_what_is_no_command_is_refused(wrong):
    program, *words = wrong.split()
    with pytest.raises((AssertionError, SystemExit, Exception)):  # click's own errors have no public class in typer
        PARSERS[program](words, True)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_say_what_they_are(page):
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{name(page)}: {block.language} is a language without a test"
        if not block.language:
            command = re.search(r"^\$? ?(ssp|snakemake|make) ", block.text, re.MULTILINE)
            assert block.is_shell or not command, f"{name(page)}: use ```sh"


@pytest.fixture
def a_users_folder(tmp_path, monkeypatch):
    """A folder with the files that the examples name: a clip, a published backbone, a finished run."""
    monkeypatch.chdir(tmp_path)
    write_video(Path("clip.mp4"), scene(40, width=320, height=240))
    config = make_config(datasets=("hmdb51",), methods=("ssp", "linear"))
    write_all(config, {"hmdb51": give_the_weights(config)})
    write_tables(config)
    return tmp_path


def give_the_weights(config):
    """What a run leaves besides its record, with random weights; returns the hash of the manifest."""
    paths = Paths.of(config)
    plain = config.model_dump(mode="json")
    write_text(paths.config, yaml.safe_dump(plain, sort_keys=False))
    rows = [
        {"id": f"{label}.avi", "path": f"{label}.avi", "label": label, "class_name": f"class {label}", "split": "test"}
        for label in range(6)
    ]
    other = {"group": "g", "frames": 8, "fps": 8.0, "width": 32, "height": 32, "codec": "h264", "sha256": "0" * 64}
    manifest = pd.DataFrame(rows).assign(**other)
    paths.kept_manifest("hmdb51").parent.mkdir(parents=True)
    manifest.to_parquet(paths.kept_manifest("hmdb51"), index=False)
    model = new_model(config, "hmdb51", "ssp", {})
    bare = {name: value for name, value in model.state_dict().items() if name not in model.added}
    save_file(bare, config.backbone.checkpoints["tiny"].local)
    save_tuned(model, paths.weights("hmdb51", "ssp", 0), {})
    return manifest_hash(paths.kept_manifest("hmdb51"))


def give_the_published_backbone():
    """Weights of VideoMamba-M in the published form, and tuned ones on top; both random."""
    model = ssp.build_model("videomamba_middle", "ssp", num_classes=51)
    backbone = {name: value.half() for name, value in model.state_dict().items() if name not in model.added}
    torch.save({"model": backbone}, "videomamba_m16_k400_mask_ft_f8_res224.pth")
    tuned = Path("results/paper/weights/hmdb51/ssp/seed0.safetensors")
    tuned.parent.mkdir(parents=True)
    save_tuned(model, tuned, {})


WITH_PYTHON = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_the_python_examples_run(page, a_users_folder, capsys):
    examples = [block.text for block in blocks(page) if block.language == "python"]
    if any("videomamba_m16" in example for example in examples):
        give_the_published_backbone()
    from torch import nn

    from ssp.methods.method import TuningMethod

    # A method stands in a file of its own; its imports are left out in the short form.
    names = {"__name__": "example", "nn": nn, "torch": torch, "TuningMethod": TuningMethod}
    for example in examples:
        exec(compile(example, name(page), "exec"), names)
    if "BranchScale" in names:
        try_method(names["BranchScale"])


def try_method(kind):
    """The example of a method changes nothing at its start, and what it adds gets a gradient."""
    from ssp.backbone.videomamba import VideoMamba

    size = {"embed_dim": 32, "depth": 2, "patch_size": 8, "num_classes": 3, "num_frames": 2, "img_size": (16, 16)}
    torch.manual_seed(0)
    model = VideoMamba(kind({}), **size, drop_path=0.0).eval()
    video = torch.randn(2, 3, 2, 16, 16)
    before = model(video)
    with torch.no_grad():
        model.branch_scale.mul_(2)
    after = model(video)
    assert not torch.equal(before, after)
    after.sum().backward()
    assert model.branch_scale.grad.abs().sum() > 0
    assert "branch_scale" in kind({}).trainable_parameters(model)


@pytest.mark.slow
def test_the_picture_can_be_taken_again(tmp_path):
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("no Chromium (Debian: chromium)")
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text("<h1>Report</h1>")
    script = ROOT / "workflow" / "scripts" / "picture_report.py"
    command = [sys.executable, script, page, "--output", picture, "--width", "300", "--height", "200"]
    subprocess.run(command, check=True, capture_output=True)
    assert Image.open(picture).size == (300, 200)
    assert (ROOT / "docs" / "assets" / "report.png").stat().st_size < 200_000
