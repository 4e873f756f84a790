"""The filter's program, run step by step as the kernel would, for both machines."""

from __future__ import annotations

import errno
import struct

import pytest

from core.scoring.sandbox.bubblewrap import ALLOW, ERROR, KILL, MACHINES, REFUSED, SOCKET, seccomp_filter

JUMPS = {0x15: lambda a, k: a == k, 0x35: lambda a, k: a >= k}


def verdict(program: bytes, number: int, architecture: int, argument: int = 0) -> int:
    data = struct.pack("<IIQQ", number, architecture, 0, argument)
    lines = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, value = lines[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        else:
            at += if_true if JUMPS[code](accumulator, value) else if_false


@pytest.mark.parametrize("machine", MACHINES)
def test_refuses_what_is_listed_and_nothing_else(machine: str) -> None:
    program, architecture = seccomp_filter(machine), MACHINES[machine]
    listed = {numbers[list(MACHINES).index(machine)] for numbers in REFUSED.values()}
    refused = {number for number in range(512) if verdict(program, number, architecture, 2) == ERROR | errno.EPERM}
    assert refused == listed
    assert all(verdict(program, number, architecture, 2) == ALLOW for number in set(range(512)) - listed)


@pytest.mark.parametrize("machine", MACHINES)
def test_allows_sockets_of_the_sandbox_s_own_network_only(machine: str) -> None:
    program, architecture = seccomp_filter(machine), MACHINES[machine]
    allowed = [family for family in range(50) if verdict(program, SOCKET[machine], architecture, family) == ALLOW]
    assert allowed == [1, 2, 10]
    assert verdict(program, SOCKET[machine], architecture, 40) == ERROR | errno.EAFNOSUPPORT  # vsock


def test_kills_who_speaks_another_machine_s_language() -> None:
    assert verdict(seccomp_filter("x86_64"), 11, 0x40000003) == KILL  # i386, where 11 is execve
    assert verdict(seccomp_filter("x86_64"), 0x40000000 + 521, MACHINES["x86_64"]) == KILL  # ptrace of x32
    assert verdict(seccomp_filter("aarch64"), 117, MACHINES["x86_64"]) == KILL
