"""A Ray to work on: one of this machine that lives as long as the work, or a cluster that was there before."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import re
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from trajcheck.errors import RunnerError, UsageError
from trajcheck.runners.ray_folder import temporary_folder
from trajcheck.runners.ray_start import only_what_tasks_need

#: Variables that Ray changes.
_SET_BY_RAY = ("RAY_AUTH_MODE", "PYTHONBREAKPOINT")

#: The variable by which Ray is told that its cluster is one machine.
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

#: The first release whose clusters ask for a token.
OLDEST = (2, 52)

_ANSWER = 10.0  # seconds that a cluster has to accept a connection


def check_installed() -> None:
    """UsageError unless there is a Ray that asks for a password."""
    if find_spec("ray") is None:
        raise UsageError("Ray is not installed; install it with pip install 'trajcheck[ray]'")
    found = version("ray")
    if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < OLDEST:
        raise UsageError(
            f"Ray {found} knows no passwords: whoever reaches its ports runs code as you. Expected "
            f"{'.'.join(map(str, OLDEST))} or newer: pip install 'trajcheck[ray]'"
        )


def check_address(address: str) -> None:
    """UsageError unless it is "auto" or HOST:PORT."""
    host, _, port = address.rpartition(":")
    if address != "auto" and not (host and port.isdigit() and "/" not in host):
        hint = "; Ray's client is not supported: run on a node of the cluster" if address.startswith("ray://") else ""
        raise UsageError(f"the address {address!r} is not that of a Ray cluster; expected auto or HOST:PORT{hint}")


@contextlib.contextmanager
def ray_session(address: str | None, processors: int) -> Iterator[None]:
    """Connected to the cluster at `address`, which is left as it was; without an address to a Ray started here, with
    `processors` to give away, of which neither process nor file remains. A Ray that this process is connected to
    already is used and left connected. Errors: RunnerError where there is no Ray to be had.

    A Ray that is started here is this user's alone: it listens on the loopback address, its processes ask each other
    for a password that no file holds, and its files lie in a closed folder.
    """
    import ray

    if ray.is_initialized():
        joined = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", joined):
            raise UsageError(f"this process is connected to the Ray at {joined}; leave out the address {address!r}")
        yield
        return
    started = address is None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    with temporary_folder() if started else contextlib.nullcontext() as folder:
        try:
            try:
                with _settings_kept(_environment() if started else {}):
                    if address is not None:
                        ray.init(answering(address), **quiet)
                    else:
                        with _closed(), only_what_tasks_need():
                            ray.init(
                                "local", num_cpus=processors, include_dashboard=False, _temp_dir=str(folder), **quiet
                            )
                        _check_closed(ray.get_runtime_context().gcs_address)
            except SystemExit:  # Ray's own handler of SIGTERM; the caller's is back, and is told
                signal.raise_signal(signal.SIGTERM)
                raise
            except Exception as error:
                where = "Ray cannot be started here" if started else f"no Ray cluster can be joined at {address}"
                raise RunnerError(f"{where}: {type(error).__name__}: {error}") from error
            yield
        finally:
            ray.shutdown()


def _environment() -> dict[str, str]:
    """For a Ray that is started here: nothing is reported to its makers; workers import what this process can; those
    who are sent a password alone may use it, and the password is not written into the home folder, as Ray would."""
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_enable_worker_prestart": "0",  # one for each processor, however many of them a task takes
        "PYTHONPATH": os.pathsep.join(sys.path),
        LOOPBACK: "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or _password(),
    }


@contextlib.contextmanager
def _closed() -> Iterator[None]:
    """A Ray that is started in the block asks for the password, and takes the loopback address, as on Windows and
    macOS, where a cluster is one machine. Its processes are told by the environment, which this one has read when it
    imported Ray: it is told anew."""
    from ray._private import ray_constants
    from ray._raylet import Config  # type: ignore[attr-defined]

    Config.initialize("")
    before = getattr(ray_constants, "ENABLE_RAY_CLUSTER", None)
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _check_closed(address: str) -> None:
    """RunnerError unless an address is one of the loopback."""
    host = address.rpartition(":")[0].strip("[]")
    if not ipaddress.ip_address(host).is_loopback:
        raise RunnerError(f"it listens at {address}, where other machines reach it; expected the loopback address")


@functools.cache
def _password() -> str:
    return secrets.token_hex(32)  # one for all: Ray keeps the first that it finds as long as the process lives


def answering(address: str) -> str:
    """The address, where somebody listens; Ray itself would try for minutes. OSError where nobody does."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER).close()
    return address


@contextlib.contextmanager
def _settings_kept(environment: Mapping[str, str]) -> Iterator[None]:
    """`environment` for what is started in the block; afterwards the caller's again, and the caller's handler of
    SIGTERM, in whose place Ray puts its own."""
    before = {name: os.environ.get(name) for name in {*environment, *_SET_BY_RAY}}
    handler = signal.getsignal(signal.SIGTERM)
    os.environ.update(environment)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
