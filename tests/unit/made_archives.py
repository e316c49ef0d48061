"""Small archives, whole or in parts, and what came out of them."""

import gzip
import io
import tarfile
import zipfile

FILES = {
    "top/a.txt": b"first",
    "top/deep/b.bin": bytes(range(256)) * 100,
    "top/ü [1] #&;.avi": b"odd name",
    "empty": b"",
}


def make_zip(path, files=FILES):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tar_bytes(files=FILES, special=()):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in special:
            archive.addfile(info)
    return buffer.getvalue()


def make_tar(path, files=FILES):
    content = tar_bytes(files)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def make_parts(folder, content, count):
    step = len(content) // count + 1
    paths = [folder / f"set-{i:02}" for i in range(count)]
    for i, path in enumerate(paths):
        path.write_bytes(content[i * step : (i + 1) * step])
    return paths


def unpacked(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
