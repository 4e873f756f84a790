"""The filter's program, run step by step as the kernel would, for both machines."""

from __future__ import annotations

import errno
import struct

import pytest

from core.scoring.sandbox.seccomp import (
    ALLOW,
    ASKED,
    DENY,
    ERROR,
    KILL,
    MACHINES,
    PRETENDED,
    REFUSED,
    UNKNOWN,
    seccomp_filter,
)

JUMPS = {0x15: lambda a, k: a == k, 0x35: lambda a, k: a >= k, 0x45: lambda a, k: a & k != 0}
HIGH = 1 << 32  # above what the kernel reads of an int


def verdict(program: bytes, number: int, architecture: int, *arguments: int) -> int:
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    lines = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, value = lines[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x54:
            accumulator &= value
        else:
            at += if_true if JUMPS[code](accumulator, value) else if_false


def answer(machine: str, call: str, *arguments: int) -> int:
    number = {**ASKED, **REFUSED, **PRETENDED}[call][list(MACHINES).index(machine)]
    assert number is not None
    return verdict(seccomp_filter(machine), number, MACHINES[machine], *arguments)


@pytest.mark.parametrize("machine", MACHINES)
def test_answers_what_is_listed_and_lets_the_rest_go(machine: str) -> None:
    program, at = seccomp_filter(machine), list(MACHINES).index(machine)
    listed = {numbers[at] for calls in (REFUSED, PRETENDED, ASKED) for numbers in calls.values()} - {None}
    answers = {number: verdict(program, number, MACHINES[machine]) for number in range(UNKNOWN)}
    assert {number for number, said in answers.items() if said == DENY} == {n[at] for n in REFUSED.values()} - {None}
    assert {number for number, said in answers.items() if said == ERROR} == {n[at] for n in PRETENDED.values()} - {None}
    assert all(said == ALLOW for number, said in answers.items() if number not in listed)


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_that_are_newer_than_the_list_do_not_exist(machine: str) -> None:
    """setxattrat, removexattrat, open_tree_attr and file_setattr are among them."""
    answers = {verdict(seccomp_filter(machine), number, MACHINES[machine]) for number in range(UNKNOWN, 4096)}
    assert answers == {ERROR | errno.ENOSYS}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("call", ["socket", "socketpair"])
def test_allows_sockets_between_its_own_processes_only(machine: str, call: str) -> None:
    assert [family for family in range(50) if answer(machine, call, family) == ALLOW] == [1]
    assert answer(machine, call, 40) == ERROR | errno.EAFNOSUPPORT  # vsock
    assert answer(machine, call, 2 | HIGH) == ERROR | errno.EAFNOSUPPORT


@pytest.mark.parametrize("machine", MACHINES)
def test_buffers_of_sockets_keep_their_size(machine: str) -> None:
    assert [option for option in range(64) if answer(machine, "setsockopt", 3, 1, option) == DENY] == [7, 8, 32, 33]
    assert answer(machine, "setsockopt", 3, 1 | HIGH, 7 | HIGH) == DENY
    assert answer(machine, "setsockopt", 3, 6, 7) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_the_end_of_a_child_cannot_be_ignored(machine: str) -> None:
    handler, old = 0x7FFF_0000_0000, 0x7FFF_0000_1000  # pointers, the first with a low half of zeros
    assert answer(machine, "rt_sigaction", 17, handler, old, 8) == DENY
    assert answer(machine, "rt_sigaction", 17 | HIGH, 0x10, 0, 8) == DENY
    assert answer(machine, "rt_sigaction", 17, 0, old, 8) == ALLOW
    assert {answer(machine, "rt_sigaction", number, handler, old, 8) for number in range(65) if number != 17} == {ALLOW}


@pytest.mark.parametrize("machine", MACHINES)
def test_memory_that_is_shared_belongs_to_a_file(machine: str) -> None:
    shared, private, validate, anonymous, huge, populate = 0x01, 0x02, 0x03, 0x20, 0x40000, 0x8000
    refused = [shared | anonymous, validate | anonymous, shared | anonymous | populate, private | anonymous | huge]
    allowed = [shared, validate, private, private | anonymous, private | anonymous | populate]
    assert {answer(machine, "mmap", 0, 4096, 3, flags) for flags in refused} == {DENY}
    assert {answer(machine, "mmap", 0, 4096, 3, flags) for flags in allowed} == {ALLOW}


def test_kills_who_speaks_another_machine_s_language() -> None:
    assert verdict(seccomp_filter("x86_64"), 11, 0x40000003) == KILL  # i386, where 11 is execve
    assert verdict(seccomp_filter("x86_64"), 0x40000000 + 521, MACHINES["x86_64"]) == KILL  # ptrace of x32
    assert verdict(seccomp_filter("aarch64"), 117, MACHINES["x86_64"]) == KILL
