"""Linear probing: only the final norm and the head train, on features of the untouched backbone.

Nothing in front of the final norm requires a gradient, so the trunk builds no graph; without drop path its features
(`VideoMamba.forward_features`) are the same in every epoch.
"""

from ssp.methods.method import TuningMethod


class LinearProbe(TuningMethod):
    """The interface's default: nothing added, no hook."""

    name = "linear"
    identity_at_start = True
    no_more_than_linear = "it is the linear probe"
    title = "Linear"
    source = "the published training script without any tuning flag (methods: head and final norm train)"
