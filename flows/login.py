"""Logins of Prefect servers on this machine: whoever reaches one without a login may have code run as its user (issue 18)."""

from __future__ import annotations

import os
import secrets
import stat
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from prefect.settings import get_current_settings
from pydantic import SecretStr

from core.errors import UserError

CLIENTS = "PREFECT_API_AUTH_STRING"
KEPT = "steelyard-login"  # in Prefect's home; what `steelyard server` asks for where no login is set


def temporary_login() -> str:
    """The login of this process's temporary server: that which clients have by hand, else a new one, which they then send.

    Each thread's settings get it: Prefect's of a block that has its own are not seen by threads that are started within.
    """
    by_hand = get_current_settings().api.auth_string
    if by_hand is not None:
        return by_hand.get_secret_value()
    login = os.environ.get(CLIENTS) or _new_login()
    _send(login)
    return login


def log_in() -> None:
    """Have the clients of this process send the kept login, where the server is on this machine and no other login is set.

    Raises `core.errors.UserError` where other users may read the kept login.
    """
    api = get_current_settings().api
    if api.url is None or api.auth_string is not None or not is_loopback(urlsplit(api.url).hostname or ""):
        return
    if (login := _kept()) is not None:
        _send(login)


def require_login() -> Path | None:
    """Have the server that this process becomes ask for a login: that which is set, else the kept one, made where there is none.

    Returns the file of a login that was made. Raises `core.errors.UserError` where other users may read the kept login.
    """
    settings = get_current_settings()
    if settings.server.api.auth_string is not None:
        return None
    login, file = _kept(), None
    if login is None:
        file, login = kept_file(), _new_login()
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as opened:
            opened.write(login)
    os.environ["PREFECT_SERVER_API_AUTH_STRING"] = login
    settings.server.api.auth_string = SecretStr(login)
    return file


def kept_file() -> Path:
    """The file of the kept login."""
    return get_current_settings().home / KEPT


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches ``host``."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _new_login() -> str:
    return f"steelyard:{secrets.token_urlsafe(32)}"


def _send(login: str) -> None:
    os.environ[CLIENTS] = login  # child processes have it, too, and values of such variables are masked everywhere
    get_current_settings().api.auth_string = SecretStr(login)


def _kept() -> str | None:
    path = kept_file()
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UserError(f"{path}: not a file that you alone may read: delete it, and start `steelyard server` anew")
    return path.read_text(encoding="ascii").strip()
