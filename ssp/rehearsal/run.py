"""Running a rehearsal: its config and weights into a folder, the whole workflow on them, and what broke."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ssp.config import Config, load_config, parse_config, read_yaml, yaml_text
from ssp.errors import ConfigError
from ssp.files import write_text
from ssp.paths import Paths
from ssp.rehearsal.at_size import at_size, take_steps
from ssp.rehearsal.broken import Broken, find_broken
from ssp.rehearsal.derive import NAME, NOT_REHEARSED, Plain, derive, picture_size, weights_file

ROOT = Path(__file__).resolve().parents[2]
LOG = "snakemake.log"
EVERY_S = 10  # between two lines that say how far it is


def prepare(plain: Plain, config: Config, folder: Path, gpu: bool) -> Config:
    """Write the stand-in's config into its folder, with random weights where there are no published ones.

    Raises:
        ConfigError: a key contradicts others once the config is small.
    """
    path, derived = folder / NAME, derive(plain, config, gpu)
    parse_config(derived, str(path))
    size = config.backbone.image_size
    smaller = f" Pictures of {size} pixels are small ones here, without a GPU." * (picture_size(config, gpu) != size)
    head = (
        f"# A rehearsal of {config.origin}, written by `ssp rehearse`: all that can break, little of what takes time.\n"
        f"# Its numbers mean nothing. Not rehearsed: {NOT_REHEARSED}.{smaller}\n"
    )
    text = head + yaml_text(derived)
    if not (path.is_file() and path.read_text(encoding="utf-8") == text):
        write_text(path, text)
    small = load_config(path)
    for name, checkpoint in small.backbone.checkpoints.items():
        if checkpoint.local == weights_file(name) and not (folder / checkpoint.local).is_file():
            _write_random(small, name, folder / checkpoint.local)
    return small


def _write_random(config: Config, checkpoint: str, path: Path) -> None:
    """Weights of a backbone that nobody has trained."""
    import torch

    from ssp.backbone.checkpoint import write_safetensors
    from ssp.backbone.layout import is_head
    from ssp.methods.build import build_model

    torch.manual_seed(0)
    frames = config.backbone.checkpoints[checkpoint].num_frames
    size = {"num_frames": frames, "img_size": config.backbone.image_size}
    model = build_model(config.backbone.architecture, "linear", 2, **size)
    weights = {name: p.detach().contiguous() for name, p in model.named_parameters() if not is_head(name)}
    write_safetensors(weights, path, {"identity": "random weights of a rehearsal"})


def rehearse(config: Config, folder: Path, image_size: int, cores: int, say: Callable[[str], None]) -> list[Broken]:
    """Run the whole workflow on a stand-in, or what is left of it, then the steps at size; returns what broke.

    Args:
        config: the stand-in, from `prepare`.
        folder: where it lies.
        image_size: of the config that it stands for; where the stand-in has smaller pictures each row takes a step.
        cores: for Snakemake, and threads of those steps.
        say: is told how far it is.

    Raises:
        ConfigError: the workflow is not there, or is running in the folder already.
    """
    if not (ROOT / "Snakefile").is_file():
        raise ConfigError(f"{ROOT}: no Snakefile; rehearse from a checkout of the repository")
    unlock = [sys.executable, ROOT / "workflow" / "scripts" / "clear_stale_lock.py"]
    locked = subprocess.run(unlock, cwd=folder, capture_output=True, text=True)
    if locked.returncode:
        raise ConfigError(locked.stderr.strip().removeprefix("Error: "))
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--configfile", NAME]
    command += ["--cores", cores, "--keep-going", "--retries", 0]
    command = [str(word) for word in command]
    say(f"in {folder}: {shlex.join(['snakemake', *command[3:]])}")
    began, last = time.monotonic(), 0.0
    with (folder / LOG).open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
        )
        try:
            for line in process.stdout:
                log.write(line)
                log.flush()
                if " steps (" in line and line.rstrip().endswith("done") and time.monotonic() - last > EVERY_S:
                    last = time.monotonic()
                    say(f"{(last - began) / 60:.1f} min: {line.strip()}")
        except BaseException:  # Ctrl-C: no job goes on by itself
            process.terminate()
            raise
        finally:
            process.wait()
    broken = find_broken(
        config, folder, process.returncode, (folder / LOG).read_text(encoding="utf-8", errors="replace")
    )
    if config.backbone.image_size != image_size:
        say(f"{(time.monotonic() - began) / 60:.1f} min; now a step of each row on pictures of {image_size} pixels")
        broken += take_steps(at_size(read_yaml(folder / NAME), folder, image_size, cores), folder, say)
    say(f"{(time.monotonic() - began) / 60:.1f} min in all")
    return broken


def results_of(config: Config, folder: Path) -> Path:
    """Results of a stand-in."""
    return folder / Paths.of(config).results
