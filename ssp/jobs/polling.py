"""How often Snakemake asks Slurm which jobs have ended."""

from __future__ import annotations


def look_steadily() -> None:
    """Have it ask as often as the profile says (`slurm-init-seconds-before-status-checks`), and never less often.

    The executor (2.8) waits 10 s longer after each time that nothing had ended, up to 180 s, and the next stage waits
    with it. One call of `squeue` asks for all jobs.
    """
    from snakemake_executor_plugin_slurm import Executor

    kept = Executor.next_seconds_between_status_checks

    def set_at_most(self: Executor, seconds: float) -> None:
        kept.fset(self, min(seconds, self.workflow.executor_settings.init_seconds_before_status_checks))

    Executor.next_seconds_between_status_checks = kept.setter(set_at_most)
