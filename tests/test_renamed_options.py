"""An option's old name works for one version, with a notice."""

import pytest

from metaloss.compose import compose, to_yaml
from metaloss.compose.renamed import RENAMED, _said
from metaloss.errors import MetalossError

SQRT = compose(["meta_optimizer.checkpointing=sqrt"])


@pytest.fixture(autouse=True)
def _nothing_said():
    _said.clear()


def test_the_old_name_of_a_word_means_the_new_one():
    with pytest.warns(FutureWarning, match=r"keep_states is now called meta_optimizer\.checkp"):
        assert compose(["meta_optimizer.keep_states=sqrt"]) == SQRT


def test_the_notice_comes_once():
    with pytest.warns(FutureWarning):
        compose(["meta_optimizer.keep_states=sqrt"])
    compose(["meta_optimizer.keep_states=all"])  # a second warning would be an error here


def test_a_config_file_of_an_older_version_is_read(tmp_path):
    old = to_yaml(SQRT).replace("checkpointing", "keep_states")
    assert "keep_states: sqrt" in old
    path = tmp_path / "config.yaml"
    path.write_text(old)
    with pytest.warns(FutureWarning, match="keep_states"):
        assert compose(config_file=path) == SQRT


def test_a_value_that_is_wrong_is_still_refused():
    with pytest.warns(FutureWarning), pytest.raises(MetalossError, match="checkpointing"):
        compose(["meta_optimizer.keep_states=root"])


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_is_no_option_any_more(old):
    group, _, name = old.rpartition(".")
    options = compose([]).meta_optimizer.options
    assert group == "meta_optimizer"
    assert not hasattr(options, name)
    assert hasattr(options, RENAMED[old][0].rpartition(".")[2])
