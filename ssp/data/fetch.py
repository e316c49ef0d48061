"""Fetching archives: from a folder that has them, or from the first address that delivers the right bytes.

Design choices
- One check for all (`ssp.data.verify`): what was downloaded, what `local` holds and what lies in place already. A wrong
  file is named and not kept; one that the user put there is left to the user.
- When all addresses fail, the one error line names every one with its reason.
- With `local`, what is in place counts only as long as it is that file or a copy of it, or a checksum proves it.
- What is unpacked already is as good as an archive: `local` may hold folders; they are left as they are.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ssp.config import Archive, Config, Dataset
from ssp.data.download import Refused, discard, download, size_of
from ssp.data.verify import check_space, defect, file_start, has_checksum, wrong_start
from ssp.errors import DataError
from ssp.files import atomic_path
from ssp.paths import Paths

_COARSEST_DATE_NS = 2 * 10**9 - 1  # FAT keeps even seconds, some network file systems whole ones


def fetch_dataset(config: Config, dataset: str) -> None:
    """Bring every archive of a data set, verified, into its archives folder.

    Raises:
        DataError: an archive cannot be had, or is not the right file.
    """
    settings, paths = config.archived[dataset], Paths.of(config)
    folder = paths.archives(dataset)
    if settings.local is not None:
        missing = [archive.file for archive in settings.archives if not (settings.local / archive.file).exists()]
        if missing:
            raise DataError(
                f"{settings.local}: {_listed(missing)} not there; put the archives of {dataset} into this folder, "
                f"or remove datasets.{dataset}.local from the config{_licence(settings)}"
            )
    else:
        by_hand = [archive.file for archive in settings.archives if not archive.urls]
        missing = [file for file in by_hand if not (folder / file).exists()]
        if missing:
            raise DataError(
                f"{dataset}: {_listed(missing)} cannot be fetched by a program{_licence(settings)}; download by hand "
                f"into {folder}, or into a folder that the config names as datasets.{dataset}.local"
            )
    for archive in settings.archives:
        source = (settings.local or folder) / archive.file
        if source.is_dir():
            if archive.size is not None or has_checksum(archive):
                raise DataError(
                    f"{source}: a folder has no size and checksum; remove them from "
                    f"datasets.{dataset}.archives, or name the archive itself"
                )
        else:
            obtain(archive, settings.local, folder)
    with atomic_path(paths.fetched(dataset)) as done:
        done.touch()


def place_of(archive: Archive, settings: Dataset, folder: Path) -> Path:
    """Where an archive lies for unpacking: in the archives folder, or, where it is unpacked already, as found."""
    if settings.local is not None and (settings.local / archive.file).is_dir():
        return settings.local / archive.file
    return folder / archive.file


def obtain(archive: Archive, local: Path | None, folder: Path) -> Path:
    """Bring one archive into a folder: a hard link or copy of `local/<file>`, or a download.

    Returns:
        The path of the verified file. A right one that is there already is not fetched again.

    Raises:
        DataError: one line that names the file, and what was expected and found or why each address failed.
    """
    target = folder / archive.file
    part = target.with_name(f".{target.name}.part")
    for path in (target, part):
        if path.is_dir():
            raise DataError(f"{path}: a folder where a file belongs; move it away")
    source = None if local is None else local / archive.file
    problem = None
    if target.is_file() and (source is None or has_checksum(archive) or _is_copy(target, source)):
        problem = defect(target, archive)
        if problem is None:
            return target
    if source is not None:
        _take(source, target, archive)
    else:
        _fetch(archive, part, target, problem)
    return target


def _take(source: Path, target: Path, archive: Archive) -> None:
    """Give a local file a second name, if it is the right one."""
    if not source.is_file():
        raise DataError(f"{source}: no such file; put {archive.file} there")
    if problem := defect(source, archive):
        raise DataError(f"{source}: {problem}; replace the file, or correct its entry in the config")
    with atomic_path(target) as temporary:
        link_or_copy(source, temporary)


def _is_copy(target: Path, source: Path) -> bool:
    """Whether `link_or_copy` made a file from what `source` is now."""
    if not source.is_file():
        return False
    ours, theirs = target.stat(), source.stat()
    slack = 0 if ours.st_dev == theirs.st_dev else _COARSEST_DATE_NS  # one file system keeps all dates alike
    return os.path.samestat(ours, theirs) or (
        ours.st_size == theirs.st_size and abs(ours.st_mtime_ns - theirs.st_mtime_ns) <= slack
    )


def _fetch(archive: Archive, part: Path, target: Path, problem: str | None) -> None:
    """Download from the first address that has the file; `problem` is what is wrong with the file in its place."""
    if problem and not archive.urls:
        raise DataError(f"{target}: {problem}; replace the file, or correct its entry in the config")
    target.parent.mkdir(parents=True, exist_ok=True)
    if archive.size is not None:  # before anything is asked for
        check_space(part.parent, archive.size - size_of(part))
    reasons = [f"{target}: {problem}"] if problem else []
    for url in archive.urls:
        try:
            _bring(url, part, archive)
        except Refused as reason:
            # An address with a line break would break the one line.
            reasons.append(f"{url if url.isprintable() else repr(url)}: {reason}")
        else:
            os.replace(part, target)
            discard(part)
            return
    raise DataError(
        f"{archive.file}: could not be fetched ({'; '.join(reasons) or 'no address known'}); "
        f"add a working address to the config, download it by hand to {target}, "
        "or name a folder that has the file as `local`"
    )


def _bring(url: str, part: Path, archive: Archive) -> None:
    """Fill `part` from one address and verify it; pieces that do not fit together are fetched once more as one."""
    try:
        address = urlsplit(url)
    except ValueError as error:
        raise Refused(f"not an address that can be fetched ({error})") from None
    for again in (True, False):
        if address.scheme in ("", "file"):
            _copy_file(Path(unquote(address.path)), part, archive)
            joined = False
        else:
            joined = download(url, part, archive)
        problem = defect(part, archive)
        if problem is None:
            return
        discard(part)
        if not (joined and again):
            raise Refused(problem)


def _copy_file(source: Path, part: Path, archive: Archive) -> None:
    if not source.is_file():
        raise Refused("no such file")
    if problem := wrong_start(file_start(source), archive):
        raise Refused(f"delivered {problem}")
    discard(part)
    check_space(part.parent, source.stat().st_size)
    shutil.copyfile(source, part)


def link_or_copy(source: Path, target: Path) -> None:
    """A second name of a file where the file system can, else a copy, with the same date where it can be set."""
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        found = source.stat()
        check_space(target.parent, found.st_size)
        shutil.copyfile(source, target)
        with contextlib.suppress(OSError):  # some network mounts refuse; then the next fetch copies again
            os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _licence(settings: Dataset) -> str:
    return f" (licence: {settings.licence_page})" if settings.licence_page else ""


def _listed(names: list[str]) -> str:
    """Every name; runs of numbered parts as `first to last`."""
    runs: list[list[str]] = []
    for name in names:
        stem, number = name[:-2], name[-2:]
        if runs and number.isdigit() and runs[-1][-1] == f"{stem}{int(number) - 1:02}":
            runs[-1].append(name)
        else:
            runs.append([name])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(run) for run in runs)
