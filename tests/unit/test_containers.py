"""The text of the images: the same steps in both, what the project's other files install, nothing of data and results.

No image is built here: that takes Docker or apptainer, and a registry.
"""

import re
import shlex
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
# Debian's name of what conda calls otherwise; slim images lack the headers, which gcc only recommends.
DEBIAN = {"c-compiler": {"gcc", "libc6-dev"}, "git": {"git"}, "libarchive": {"libarchive13"}}


def dockerfile() -> list[tuple[str, str]]:
    """Its instructions: (keyword, arguments), continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line]


def of(keyword: str) -> list[str]:
    return [arguments for word, arguments in dockerfile() if word == keyword]


def definition() -> dict[str, list[str]]:
    """Lines of each section of the apptainer definition; those of its head under ''."""
    found: dict[str, list[str]] = {"": []}
    section = ""
    for line in (ROOT / "container/ssp.def").read_text().splitlines():
        if line.startswith("%"):
            section = line
            found[section] = []
        elif line.strip() and not line.startswith("#"):
            found[section].append(line.strip())
    return found


def steps() -> list[str]:
    """Commands of the Dockerfile."""
    return [" ".join(shlex.split(step)) for run in of("RUN") for step in run.split("&&")]


def conda() -> list[str]:
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    return [name for name in dependencies if isinstance(name, str)]


def test_python_is_that_of_conda_in_both_images():
    (version,) = (name.partition("=")[2] for name in conda() if name.startswith("python="))
    assert of("FROM") == [f"python:{version}-slim-bookworm"]
    assert definition()[""] == ["Bootstrap: docker", f"From: python:{version}-slim-bookworm"]


def test_packages_are_the_pins_and_those_of_conda():
    (installed,) = (step.split() for step in steps() if step.startswith("apt-get install"))
    wanted = set().union(*(DEBIAN[name] for name in conda() if "=" not in name and name != "pip"))
    assert {word for word in installed[2:] if not word.startswith("-")} == wanted
    pip = [step for step in steps() if step.startswith("pip install")]
    (own,) = re.findall(r"@(pip install .*--editable \.)", (ROOT / "Makefile").read_text())
    kept = {word for word in own.split() if word not in ("--quiet", "--disable-pip-version-check")}
    assert pip[0] == "pip install --no-cache-dir -r requirements.txt"
    assert set(pip[1].split()) - {"--no-cache-dir"} == kept
    assert len(pip) == 2


def test_both_images_are_made_by_the_same_steps():
    there = [" ".join(shlex.split(line)) for line in definition()["%post"]]
    only_there = [line for line in there if line not in steps()]
    assert only_there == ["cd /opt/ssp", "git checkout --force HEAD"]
    order = [step for step in steps() if not step.startswith("git config")]
    assert [line for line in there if line in order] == order


def test_what_is_copied_is_there_and_what_runs_is_snakemake_in_the_folder_of_the_snakefile():
    copied = [copy.split() for copy in of("COPY")]
    assert [source for source, _ in copied] == ["requirements.txt", "."]
    assert all((ROOT / source).exists() for source, _ in copied)
    assert of("WORKDIR") == ["/opt/ssp"]
    assert (ROOT / "Snakefile").exists()
    assert of("ENTRYPOINT") == ['["snakemake"]']
    assert definition()["%files"] == [".git /opt/ssp/.git"]
    assert definition()["%runscript"] == ["cd /opt/ssp", 'exec snakemake "$@"']


def test_no_data_results_or_builds_get_into_an_image():
    """Docker takes a pattern from the top, git one without a slash inside from anywhere."""

    def as_docker_has_it(pattern: str) -> str:
        kept, pattern = ("!" if pattern.startswith("!") else ""), pattern.lstrip("!")
        anchored = "/" in pattern.rstrip("/")
        return kept + ("" if anchored else "**/") + pattern.strip("/")

    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored == [as_docker_has_it(line) for line in (ROOT / ".gitignore").read_text().split()]
    assert {"data", "results/*", "**/.snakemake"} <= set(ignored)
