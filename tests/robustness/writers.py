"""What a process writes that meets others: MLflow runs and Optuna trials through the code of the jobs."""

import time
from pathlib import Path

from tests.robustness.bench import CONFIG

WRITERS, RUNS, TRIALS = 4, 5, 8
LIMIT_S = 400  # on a machine that is busy with other things too


def write(number: int) -> None:
    """Runs, then trials, each once all writers are there."""
    track(number)
    optimise(number)


def track(number: int) -> None:
    """A run, and others nested in it."""
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - before the start: the writing is what has to meet

    from ssp.config import load_config
    from ssp.jobs.tracking import Tracking

    config = load_config(CONFIG)
    _wait_for_all("runs", number)
    tracking = Tracking(config)
    parent = tracking.start(f"writer{number}", "sweep", tags={"ssp.writer": str(number)})
    for trial in range(RUNS):
        run = tracking.start(f"writer{number}/{trial}", "trial", tags={"ssp.writer": str(number)}, parent=parent.id)
        run.log_params({"lr": trial, "number": number})
        for step in range(3):
            run.log_metrics({"loss": number + trial + step, "top1": step}, step)
        run.finish()
        assert not run.broken
    parent.finish()
    assert not parent.broken


def optimise(number: int) -> None:
    """Workers of one study, as a cluster has them: the study is made by its first user."""
    from ssp.config import load_config
    from ssp.jobs.cell import Cell
    from ssp.jobs.study import open_study

    cell = Cell(load_config(CONFIG), "ucf101", "linear")
    _wait_for_all("trials", number)
    study = open_study(cell)
    for i in range(TRIALS):
        trial = study.ask()
        trial.set_user_attr("slot", TRIALS * number + i)
        x = trial.suggest_float("x", 0, 1)
        trial.report(x, 1)
        study.tell(trial, x)


def _wait_for_all(what: str, number: int) -> None:
    Path(f"here-{what}-{number}").touch()
    limit = time.monotonic() + LIMIT_S
    while len(list(Path().glob(f"here-{what}-*"))) < WRITERS:
        assert time.monotonic() < limit, "a writer did not come"
        time.sleep(0.002)
