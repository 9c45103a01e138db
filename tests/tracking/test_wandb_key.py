"""Credentials are found where wandb finds them, by reading alone."""

import pytest

from metaloss.tracking.wandb_key import has_key

KEY = "k" * 40


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home" / ".config" / "wandb").mkdir(parents=True)
    (tmp_path / "work" / "wandb").mkdir(parents=True)
    return tmp_path / "home"


def found(home, **environ):
    return has_key(environ, home, home.parent / "work")


def write_netrc(path, host):
    path.write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    path.chmod(0o600)


def test_nothing_is_found_where_nothing_is(home):
    assert not found(home)
    assert not found(home, WANDB_API_KEY="")


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"])
def test_the_environment_counts(home, name):
    assert found(home, **{name: KEY})


@pytest.mark.parametrize("host", ["api.wandb.ai", "api.forge.coreweave.com"])
@pytest.mark.parametrize("name", [".netrc", "_netrc"])
def test_the_netrc_file_counts_for_the_default_servers(home, host, name):
    write_netrc(home / name, host)
    assert found(home)


def test_the_netrc_file_counts_only_for_the_server_in_use(home):
    write_netrc(home / ".netrc", "wandb.example.org:8080")
    assert not found(home)
    assert not found(home, WANDB_BASE_URL="https://other.example.org")
    assert found(home, WANDB_BASE_URL="https://wandb.example.org:8080")


def test_the_server_may_be_named_in_the_settings(home):
    write_netrc(home / ".netrc", "wandb.example.org")
    settings = "[default]\nbase_url = https://wandb.example.org\n"
    (home / ".config" / "wandb" / "settings").write_text(settings)
    assert found(home)
    # The folder's own settings win over the user's.
    other = "[default]\nbase_url = https://other.example.org\n"
    (home.parent / "work" / "wandb" / "settings").write_text(other)
    assert not found(home)


def test_another_netrc_file_may_be_named(home):
    write_netrc(home / ".netrc", "api.wandb.ai")
    assert not found(home, NETRC=str(home / "nothing"))
    write_netrc(home / "mine", "api.wandb.ai")
    assert found(home, NETRC=str(home / "mine"))


def test_a_key_in_the_settings_counts(home):
    (home / "elsewhere").mkdir()
    (home / "elsewhere" / "settings").write_text(f"[default]\napi_key = {KEY}\n")
    assert not found(home)
    assert found(home, WANDB_CONFIG_DIR=str(home / "elsewhere"))


def test_damaged_files_count_for_nothing(home):
    (home / ".netrc").write_bytes(b"machine \xff\xfe nonsense")
    (home / ".config" / "wandb" / "settings").write_text("no section here")
    assert not found(home)
