"""Fetching archives: from a folder that has them, or from the first address that delivers the right bytes.

Design choices
- Size and checksums decide what a file is; where it came from does not matter. A wrong file is named and not kept.
- A broken download is kept as `.<file>.part` and continued (HTTP range); a server that ignores ranges starts it again.
- Errors that may pass (connection lost, timeout, 429, 5xx) are tried again with growing pauses; others go straight to
  the next address. When all fail, the one error line names every address with its reason.
- What is unpacked already is as good as an archive: `local` may hold folders; they are left as they are.
- An HTML page instead of an archive (login, licence, "file not found") is reported as what it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ssp.config import Archive, Config, Dataset
from ssp.errors import DataError
from ssp.files import atomic_path
from ssp.paths import Paths
from ssp.progress import progress

ATTEMPTS = 4  # per address
PAUSE_S = 1.0  # before the second attempt; doubles after each
TIMEOUT_S = 60  # without a byte
CHUNK = 1 << 20
NETWORK_CHUNK = 1 << 16  # what a broken connection loses at most


class _Refused(Exception):
    """An address that will not deliver the file; the message is the reason."""


class _MayPass(Exception):
    """A failure that another attempt may not see."""


def fetch_dataset(config: Config, dataset: str) -> None:
    """Bring every archive of a data set, verified, into its archives folder.

    Raises:
        DataError: an archive cannot be had, or is not the right file.
    """
    settings, paths = config.datasets[dataset], Paths.of(config)
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
        missing = [file for file in by_hand if not (folder / file).is_file()]
        if missing:
            raise DataError(
                f"{dataset}: {_listed(missing)} cannot be fetched by a program{_licence(settings)}; download by hand "
                f"into {folder}, or into a folder that the config names as datasets.{dataset}.local"
            )
    for archive in settings.archives:
        if place_of(archive, settings, folder).is_dir():
            if archive.size is not None or archive.sha256 or archive.md5:
                raise DataError(
                    f"{settings.local / archive.file}: a folder has no size and checksum; remove them from "
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
    if target.is_file() and _defect(target, archive) is None:
        return target
    if local is not None:
        source = local / archive.file
        if not source.is_file():
            raise DataError(f"{source}: no such file; put {archive.file} there")
        if defect := _defect(source, archive):
            raise DataError(f"{source}: {defect}; replace the file, or correct its entry in the config")
        with atomic_path(target) as temporary:
            link_or_copy(source, temporary)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    if archive.size is not None:  # before anything is asked for
        _check_space(part.parent, archive.size - (part.stat().st_size if part.exists() else 0))
    reasons = []
    for url in archive.urls:
        try:
            _download(url, part, archive)
        except _Refused as reason:
            reasons.append(f"{url}: {reason}")
        else:
            os.replace(part, target)
            return target
    raise DataError(
        f"{archive.file}: could not be fetched ({'; '.join(reasons) or 'no address known'}); "
        "add a working address to the config, or name a folder that has the file as `local`"
    )


def _defect(path: Path, archive: Archive) -> str | None:
    """What is wrong with a file, or None. Size first: it is free."""
    size = path.stat().st_size
    if archive.size is not None and size != archive.size:
        return f"wrong size, expected {archive.size} bytes, found {size}"
    digests = {name: hashlib.new(name) for name in ("sha256", "md5") if getattr(archive, name)}
    if digests:
        with path.open("rb") as file, progress(f"verifying {path.name}, MiB") as report:
            while chunk := file.read(CHUNK):
                for digest in digests.values():
                    digest.update(chunk)
                report(file.tell() >> 20, size >> 20)
    for name, digest in digests.items():
        expected = getattr(archive, name).lower()
        if digest.hexdigest() != expected:
            return f"wrong checksum, expected {name} {expected}, found {digest.hexdigest()}"
    return None


def _download(url: str, part: Path, archive: Archive) -> None:
    """Fill `part` from one address and verify it."""
    pause = PAUSE_S
    for attempt in range(ATTEMPTS):
        resumed = part.exists()
        try:
            _transfer(url, part, archive)
        except _MayPass as failure:
            if attempt == ATTEMPTS - 1:
                raise _Refused(f"{failure}, {ATTEMPTS} attempts") from None
            time.sleep(pause)
            pause *= 2
            continue
        if _is_html(part) and not archive.file.endswith((".html", ".htm")):
            part.unlink()
            raise _Refused("delivered an HTML page instead of the file")
        if defect := _defect(part, archive):
            part.unlink()
            if resumed:  # the beginning may have come from another file: once more, from the start
                continue
            raise _Refused(defect)
        return
    raise _Refused("the continued download never matched")


def _transfer(url: str, part: Path, archive: Archive) -> None:
    """Copy one address to the end of `part`."""
    address = urlsplit(url)
    if address.scheme in ("", "file"):
        _copy_file(Path(unquote(address.path)), part)
        return
    import requests

    have = part.stat().st_size if part.exists() else 0
    # No transparent compression: ranges, sizes and checksums are about the bytes of the file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            if response.status_code == 416:  # what we have is not a beginning of this file
                part.unlink()
                raise _MayPass("the server refused to continue the download")
            if response.status_code == 429 or response.status_code >= 500:
                raise _MayPass(f"HTTP {response.status_code}")
            if response.status_code not in (200, 206):
                raise _Refused(f"HTTP {response.status_code}")
            if response.status_code == 200:
                have = 0
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else None
            _check_space(part.parent, (total or archive.size or 0) - have)
            with part.open("ab" if have else "wb") as file, progress(f"fetching {archive.file}, MiB") as report:
                for chunk in response.iter_content(NETWORK_CHUNK):
                    file.write(chunk)
                    report(file.tell() >> 20, (total or file.tell()) >> 20)
    except (requests.Timeout, requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        timeout = isinstance(error, requests.Timeout)
        raise _MayPass(f"no answer for {TIMEOUT_S} s" if timeout else "no connection, or it broke") from None
    except requests.RequestException as error:
        raise _Refused(f"not an address that can be fetched ({type(error).__name__})") from None
    if total is not None and part.stat().st_size < total:
        raise _MayPass("the connection broke")


def _copy_file(source: Path, part: Path) -> None:
    if not source.is_file():
        raise _Refused("no such file")
    part.unlink(missing_ok=True)
    _check_space(part.parent, source.stat().st_size)
    shutil.copyfile(source, part)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(f"{folder}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free; make room there")


def link_or_copy(source: Path, target: Path) -> None:
    """A second name of a file where the file system can, else a copy."""
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        _check_space(target.parent, source.stat().st_size)
        shutil.copyfile(source, target)


def _is_html(path: Path) -> bool:
    with path.open("rb") as file:
        return looks_like_html(file.read(512))


def looks_like_html(start: bytes) -> bool:
    """Whether the first bytes of a file are those of a web page: a login, a licence, "not found"."""
    return start.lstrip().lower().startswith((b"<!doctype html", b"<html"))


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
