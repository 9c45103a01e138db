"""Whether there is an API key for Weights & Biases.

The package's own look-up ends in a prompt and changes settings. This one only reads the documented
places: the environment, the netrc file and the settings files.
"""

from __future__ import annotations

import configparser
import netrc
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

# wandb's default servers; older versions know only the first.
_DEFAULT_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")


def has_key(environ: Mapping[str, str], home: Path, folder: Path) -> bool:
    """Return whether there are credentials for the configured server.

    ``wandb init`` writes settings into the current folder, ``folder``.

    Example:
        >>> has_key({"WANDB_API_KEY": "0" * 40}, Path("nowhere"), Path("nowhere"))
        True
        >>> has_key({}, Path("nowhere"), Path("nowhere"))
        False
    """
    if environ.get("WANDB_API_KEY") or environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = _settings(environ, home, folder)
    if settings.get("api_key"):
        return True
    server = environ.get("WANDB_BASE_URL") or settings.get("base_url")
    hosts = (urlsplit(server).netloc,) if server else _DEFAULT_HOSTS
    return any(_in_netrc(environ, home, host) for host in hosts)


def _settings(environ: Mapping[str, str], home: Path, folder: Path) -> dict[str, str]:
    system = environ.get("WANDB_CONFIG_DIR")
    files = (
        (Path(system) if system else home / ".config" / "wandb") / "settings",
        folder / "wandb" / "settings",
    )
    found: dict[str, str] = {}
    for file in files:
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, configparser.Error):
            continue
        if parser.has_section("default"):
            found.update(parser["default"])
    return found


def _in_netrc(environ: Mapping[str, str], home: Path, host: str) -> bool:
    named = environ.get("NETRC")
    for file in (Path(named),) if named else (home / ".netrc", home / "_netrc"):
        try:
            entry = netrc.netrc(file).authenticators(host)
        except (OSError, ValueError, netrc.NetrcParseError):
            continue
        if entry is not None and entry[2]:
            return True
    return False
