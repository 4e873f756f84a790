"""The filter of system calls: a classic BPF program, as ``bwrap --seccomp`` reads it.

It removes what is not behind the namespaces, what hides memory or time from the sandbox's accounts, and kernel doors that no
solution of a problem needs. Layout and constants: ``linux/filter.h``, ``linux/seccomp.h``, ``linux/audit.h``; numbers:
``asm/unistd_64.h`` and ``asm-generic/unistd.h``.
"""

from __future__ import annotations

import errno
import platform
import struct

LOAD, AND, RETURN = 0x20, 0x54, 0x06
EQUAL, AT_LEAST, ANY_OF = 0x15, 0x35, 0x45
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
DENY, DONE = ERROR | errno.EPERM, ERROR  # an error of number 0 is success
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; both machines are little-endian
X32 = 0x40000000  # a second set of numbers on x86_64
UNKNOWN = 463  # the first number after mseal's, from where on nobody has looked; the same on all machines since 424

AF_UNIX = 1
SOL_SOCKET = 1
BUFFER_SIZES = (7, 8, 32, 33)  # SO_SNDBUF, SO_RCVBUF, and both with FORCE
SIGCHLD = 17
SHARED_ANONYMOUS, HUGE_PAGES = 0x01 | 0x20, 0x40000  # flags of mmap

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# (x86_64, aarch64), None where a machine has no such call
REFUSED = {
    # other processes' memory and descriptors
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # memory that belongs to no process and to no file
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "vmsplice": (278, 75), "inotify_init": (253, None), "inotify_init1": (294, 26), "fanotify_init": (300, 262),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # parts of the kernel with a history
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "kexec_load": (246, 104), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224),
    "swapoff": (168, 225), "syslog": (103, 116), "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    # what /dev/null and its kin, which are the machine's own, would keep where the user owns them; libraries expect the refusal
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "setxattr": (188, 5),
    "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
}  # fmt: skip
# The same of what libraries do in passing and expect to work, as shutil.copy does: answered as done. bwrap has no mount on which a
# device can be used and not be changed.
PRETENDED = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
}  # fmt: skip
# Calls that depend on their arguments, each with its block of the program below.
ASKED = {
    "socket": (41, 198), "socketpair": (53, 199), "setsockopt": (54, 208), "rt_sigaction": (13, 134), "mmap": (9, 222),
}  # fmt: skip


def seccomp_problem() -> str | None:
    """Return why there is no filter for this machine, None where there is one."""
    if (machine := platform.machine()) in MACHINES:
        return None
    return f"no list of system calls for a {machine} machine, only for {' and '.join(MACHINES)}"


def seccomp_filter(machine: str) -> bytes:
    """Return the program: calls of another machine kill, `REFUSED` fail, `PRETENDED` do nothing, `ASKED` depend, others go."""
    lines = [_line(LOAD, ARCHITECTURE), _line(EQUAL, MACHINES[machine], 1, 0), _line(RETURN, KILL), _line(LOAD, NUMBER)]
    if machine == "x86_64":
        lines += _where(AT_LEAST, X32, [_line(RETURN, KILL)])
    lines += _where(AT_LEAST, UNKNOWN, [_line(RETURN, ERROR | errno.ENOSYS)])
    for calls, answer in ((REFUSED, DENY), (PRETENDED, DONE)):
        for name in calls:
            lines += _where_call(machine, calls[name], [_line(RETURN, answer)])
    for name, block in _questions().items():
        lines += _where_call(machine, ASKED[name], block)
    return b"".join([*lines, _line(RETURN, ALLOW)])


def _questions() -> dict[str, list[bytes]]:
    """Blocks of `ASKED`, each of which ends with an answer. Kernels read these arguments as 32 bits, pointers apart."""
    family = [
        _line(LOAD, _argument(0)),
        *_where(EQUAL, AF_UNIX, [_line(RETURN, ALLOW)]),  # no other is counted; none leads anywhere
        _line(RETURN, ERROR | errno.EAFNOSUPPORT),
    ]
    sizes = [_line(LOAD, _argument(1)), _line(EQUAL, SOL_SOCKET, 1, 0), _line(RETURN, ALLOW), _line(LOAD, _argument(2))]
    for option in BUFFER_SIZES:
        sizes += _where(EQUAL, option, [_line(RETURN, DENY)])
    # Who ignores it has children whose processor time is nobody's (``wait_task_zombie`` in kernel/exit.c). To ask is no harm.
    handler = [_line(LOAD, _argument(0)), *_where(EQUAL, SIGCHLD, [
        _line(LOAD, _argument(1)), _line(EQUAL, 0, 1, 0), _line(RETURN, DENY),
        _line(LOAD, _argument(1) + 4), _line(EQUAL, 0, 1, 0), _line(RETURN, DENY),
    ])]  # fmt: skip
    # A page of it keeps all of it, and huge pages are in no process's size.
    flags = [
        _line(LOAD, _argument(3)),
        *_where(ANY_OF, HUGE_PAGES, [_line(RETURN, DENY)]),
        _line(AND, SHARED_ANONYMOUS),
        *_where(EQUAL, SHARED_ANONYMOUS, [_line(RETURN, DENY)]),
    ]
    allow = [_line(RETURN, ALLOW)]
    return {
        "socket": family,
        "socketpair": family,
        "setsockopt": sizes + allow,
        "rt_sigaction": handler + allow,
        "mmap": flags + allow,
    }


def _argument(index: int) -> int:
    return ARGUMENTS + 8 * index


def _where_call(machine: str, numbers: tuple[int, int | None], block: list[bytes]) -> list[bytes]:
    number = numbers[list(MACHINES).index(machine)]
    return [] if number is None else _where(EQUAL, number, block)


def _where(test: int, value: int, block: list[bytes]) -> list[bytes]:
    """Run ``block`` where the test holds, or go on behind it."""
    return [_line(test, value, 0, len(block)), *block]


def _line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
