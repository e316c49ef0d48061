from ssp.progress import latest, progress


def steps(title):
    """Work that is done by and by, as trainings are."""
    with progress(title) as show:
        for done in range(3):
            show(done, 3)
            yield


def test_the_innermost_work_is_told_and_then_the_outer_again():
    with progress("sweep") as outer:
        outer(1, 4)
        with progress("trial") as inner:
            inner(5, 10)
            assert latest()[:3] == ("trial", 5, 10)
        assert latest()[:3] == ("sweep", 1, 4)
    assert latest() is None


def test_work_that_failed_and_ends_late_takes_nothing_from_what_has_begun_since():
    failed, goes_on = steps("failed"), steps("goes on")
    next(failed)
    next(goes_on)
    failed.close()  # when its traceback is thrown away
    next(goes_on)
    assert latest()[:2] == ("goes on", 1)
    goes_on.close()
    assert latest() is None
