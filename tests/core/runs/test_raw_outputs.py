"""Models that say which of their outputs are the raw outputs, in runs."""

import torch
from torch import nn

import metaloss

from ..small_setups import blobs, files_of, net, train


class Several(nn.Sequential):
    """Returns the outputs of its layers last in train mode, and alone in evaluation mode."""

    def forward(self, x):
        found = super().forward(x)
        return {"features": x, "main": found, "aux": 2 * found} if self.training else found


class Says(Several):
    def raw_outputs(self, returned):
        return returned if isinstance(returned, torch.Tensor) else returned["main"]


def saying(raw_outputs):
    model = Several(*net())
    model.raw_outputs = raw_outputs
    return model


def test_a_run_takes_the_outputs_that_the_model_says(tmp_path):
    words = ["schedule=online", "steps=5"]
    one = files_of(train(tmp_path / "plain", *words))
    assert files_of(train(tmp_path / "method", *words, model=Says(*net()))) == one
    run = train(tmp_path / "key", *words, model=saying("main"))
    assert files_of(run) == one
    rows = blobs().test.inputs
    loaded = metaloss.load_run(tmp_path / "key", model=saying("main"))
    assert loaded.predict(rows).equals(run.predict(rows))
    many = train(tmp_path / "many", *words, "seeds=2", model=saying("main"))
    assert files_of(many[0]) == files_of(train(tmp_path / "n", *words, "seeds=2")[0])


def test_heads_have_their_shares_of_the_loss(tmp_path):
    words = ["schedule=online", "steps=5"]
    one = train(tmp_path / "one", *words)
    nothing = train(tmp_path / "nothing", *words, model=saying({"main": 1.0, "aux": 0.0}))
    some = train(tmp_path / "some", *words, model=saying({"main": 1.0, "aux": 0.5}))
    for own, other in zip(nothing.model.parameters(), one.model.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(some.model[0].weight, one.model[0].weight, rtol=1e-3)
