"""The view of a video that stands for it in pictures. What reads test again is tried with trainings, in test_seed."""

import pytest

from ssp.config import Clips
from ssp.jobs.inference import central_view


@pytest.mark.parametrize(("segments", "crops", "view"), [(1, 1, 0), (3, 1, 1), (1, 3, 1), (3, 3, 4), (4, 3, 7)])
def test_the_central_view_is_the_middle_crop_of_the_middle_segment(segments, crops, view):
    clips = Clips(sampling="dense", num_frames=4, test_segments=segments, test_crops=crops)
    assert central_view(clips) == view
