"""How often Slurm is asked, with the executor's own class; that it is used, tests/cluster/test_slurm.py shows."""

from types import SimpleNamespace

from snakemake_executor_plugin_slurm import Executor

from ssp.jobs.polling import look_steadily


def test_the_time_between_two_looks_does_not_grow(monkeypatch):
    monkeypatch.setattr(Executor, "next_seconds_between_status_checks", Executor.next_seconds_between_status_checks)
    executor = Executor.__new__(Executor)
    executor.workflow = SimpleNamespace(executor_settings=SimpleNamespace(init_seconds_before_status_checks=20))
    executor.next_seconds_between_status_checks = 30
    assert executor.next_seconds_between_status_checks == 30  # or there would be nothing to do
    look_steadily()
    executor.next_seconds_between_status_checks = executor.next_seconds_between_status_checks + 10
    assert executor.next_seconds_between_status_checks == 20
    executor.next_seconds_between_status_checks = 5
    assert executor.next_seconds_between_status_checks == 5
