"""Processes that are copies (forks) of one that has imported what they need: imports are most of a short process.

For tests that are about processes, which may meet, be killed or wait for each other, and not about how one starts.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["tests.preloaded"])


def start(
    function: Callable, *arguments: object, folder: Path, out: Path, err: Path | None = None, **environment: str
) -> BaseProcess:
    """A copy that runs a function of a module.

    Args:
        function: what it runs.
        *arguments: of the function.
        folder: its working directory.
        out: the file for what it says.
        err: another one for its errors.
        **environment: variables that it has beside those of this process.
    """
    copy = forks.Process(target=_run, args=(function, arguments, os.environ | environment, folder, out, err or out))
    copy.start()
    return copy


def start_ssp(words: list[str], folder: Path, out: Path, err: Path | None = None) -> BaseProcess:
    """A copy that is the command line."""
    return start(_ssp, words, folder=folder, out=out, err=err)


def _run(function: Callable, arguments: tuple, environment: dict[str, str], folder: Path, out: Path, err: Path) -> None:
    os.environ.clear()  # it has those of the time when the first copy was made
    os.environ.update(environment)
    os.chdir(folder)
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    function(*arguments)


def _ssp(words: list[str]) -> None:
    from ssp.cli import main

    sys.argv = ["ssp", *words]
    main()
