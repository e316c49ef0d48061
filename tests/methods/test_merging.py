"""Every registered method that says it is mergeable is, in every variant; the others say why not in one line."""

import pytest
import torch

from ssp.backbone.mixer import Mixer
from ssp.errors import ConfigError
from ssp.methods.registry import load_method, method_names
from tests.methods.by_hand import build
from tests.methods.inside import check_merged

VARIANTS = [(name, options) for name in method_names() for options in load_method(name).test_configs]


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_mergeable_or_not(name, options):
    if load_method(name).mergeable:
        check_merged(name, **options)
        return
    model = build(name, **options)
    before = dict(model.named_parameters())
    with pytest.raises(ConfigError, match=rf"^{name}: what it learns cannot be folded into the backbone's weights$"):
        model.method.merge(model)
    assert dict(model.named_parameters()) == before


def test_a_mixer_given_its_own_weights_is_the_same():
    torch.manual_seed(0)
    mixer, hidden = Mixer(24).double(), torch.randn(1, 9, 24, dtype=torch.float64)
    names = set(mixer.state_dict())
    expected = mixer(hidden)
    mixer.set_weights(mixer.weights())
    assert set(mixer.state_dict()) == names
    torch.testing.assert_close(mixer(hidden), expected)


def test_a_mixer_takes_on_the_weights_of_another():
    torch.manual_seed(0)
    mixer, other, hidden = Mixer(24), Mixer(24), torch.randn(1, 9, 24)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    bias = torch.randn(24)
    mixer.set_weights(other.weights()._replace(out_proj_bias=bias))
    torch.testing.assert_close(mixer(hidden), other(hidden) + bias)
    assert not mixer.out_proj.bias.requires_grad
