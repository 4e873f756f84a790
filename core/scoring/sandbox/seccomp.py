"""System calls that model-written code is refused, as the classic BPF program that bubblewrap's ``--seccomp`` reads.

The namespaces are the walls. This removes what is not behind them, what hides memory from the sandbox's accounts, and kernel doors
that no solution of a problem needs. Layout and constants: ``linux/filter.h``, ``linux/seccomp.h``, ``linux/audit.h``; numbers:
``asm/unistd_64.h`` and ``asm-generic/unistd.h``.
"""

from __future__ import annotations

import errno
import platform
import struct

LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; both machines are little-endian
X32 = 0x40000000  # a second set of numbers on x86_64
# AF_UNIX, AF_INET, AF_INET6: all within the sandbox's own network namespace, as vsock and others are not
FAMILIES = (1, 2, 10)

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SOCKET = {"x86_64": 41, "aarch64": 198}
# (x86_64, aarch64)
REFUSED = {
    # other processes' memory and descriptors
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # memory that belongs to no process and to no file
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # parts of the kernel with a history
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "kexec_load": (246, 104), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224),
    "swapoff": (168, 225), "syslog": (103, 116), "acct": (163, 89), "quotactl": (179, 60),
}  # fmt: skip


def seccomp_problem() -> str | None:
    """Return why there is no filter for this machine, None where there is one."""
    if (machine := platform.machine()) in MACHINES:
        return None
    return f"no list of system calls for a {machine} machine, only for {' and '.join(MACHINES)}"


def seccomp_filter(machine: str) -> bytes:
    """Return the program: calls of another machine kill, those of ``REFUSED`` and sockets of other families fail, others go."""
    refused = sorted(numbers[list(MACHINES).index(machine)] for numbers in REFUSED.values())
    lines = [_line(LOAD, ARCHITECTURE), _line(EQUAL, MACHINES[machine], 1, 0), _line(RETURN, KILL), _line(LOAD, NUMBER)]
    if machine == "x86_64":
        lines += [_line(AT_LEAST, X32, 0, 1), _line(RETURN, KILL)]
    for number in refused:
        lines += [_line(EQUAL, number, 0, 1), _line(RETURN, ERROR | errno.EPERM)]
    lines += [_line(EQUAL, SOCKET[machine], 1, 0), _line(RETURN, ALLOW), _line(LOAD, FIRST_ARGUMENT)]
    for family in FAMILIES:
        lines += [_line(EQUAL, family, 0, 1), _line(RETURN, ALLOW)]
    return b"".join([*lines, _line(RETURN, ERROR | errno.EAFNOSUPPORT)])


def _line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
