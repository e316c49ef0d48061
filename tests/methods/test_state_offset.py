"""State-offset tuning against its formula in NumPy, in all three forms, its start and sizes."""

import numpy as np
import pytest

from ssp.errors import ConfigError
from tests.methods.by_hand import DEPTH, build, check, lively
from tests.methods.inside import counts_of_videomamba_m, forward


@pytest.mark.parametrize("options", [{}, {"rank": 2}, {"on": "output"}], ids=str)
def test_is_its_formula(options):
    model = lively("state_offset", **options)

    def logits(weights, video):
        def change(layer, shared, *scans):
            for way, scan in enumerate(scans):
                offset = weights[f"state_offset.{layer}.{way}.offset"]
                if options.get("on") == "output":
                    scan.output = offset
                else:
                    states = weights[f"state_offset.{layer}.{way}.states"] if "rank" in options else np.eye(16)
                    scan.offset = offset @ states

        return forward(weights, video, change)

    ends = ("offset", "states") if "rank" in options else ("offset",)
    check(model, logits, [f"state_offset.{i}.{way}.{end}" for i in range(DEPTH) for way in (0, 1) for end in ends])


def test_start():
    for each in (each for block in build("state_offset", rank=2).state_offset for each in block):
        assert not each.offset.count_nonzero()
        assert 0.5 * 16**-0.5 < each.states.abs().max() <= 16**-0.5  # kaiming uniform with a = sqrt(5)


def test_an_offset_of_the_output_has_no_rank():
    with pytest.raises(ConfigError, match="rank"):
        build("state_offset", on="output", rank=2)


def test_size():
    assert counts_of_videomamba_m("state_offset") == (1_179_648, 1_179_648)
    assert counts_of_videomamba_m("state_offset", rank=1)[0] == 74_752
    assert counts_of_videomamba_m("state_offset", rank=16)[0] == 16 * 74_752
    assert counts_of_videomamba_m("state_offset", on="output")[0] == 73_728
