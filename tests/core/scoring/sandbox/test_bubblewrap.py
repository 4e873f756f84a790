"""What a program does to the machine's devices, and whether its limits count, by values that it tells itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from core.scoring.sandbox.jail import Unconfined
from core.scoring.sandbox.sandbox import Limits, Outcome, Program, choose_jail, run_program, run_programs

ROOT = Path(__file__).resolve().parents[4]
TESTS = "assert answer() == 1"


def run(code: str, limits: Limits | None = None) -> Outcome:
    (outcome,) = run_programs([Program(textwrap.dedent(code), TESTS)], limits)
    return outcome


# Devices

# Each way to change what stays with a device node, by name, by descriptor, by the shell; then the right answer.
CHANGES = """
import ctypes, os, platform, struct, subprocess
def tried(*actions):
    for action in actions:
        try: action()
        except (OSError, ValueError): pass
libc, here = ctypes.CDLL(None), -100
common = [452, 463, 466, 469]  # fchmodat2, setxattrat, removexattrat, file_setattr
old = [90, 132, 235] if platform.machine() == "x86_64" else []  # chmod, utime, utimes
acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, 0, 2**32 - 1) for tag in (1, 4, 32))
for name in ("null", "zero", "full", "random", "urandom", "tty"):
    path = "/dev/" + name
    tried(lambda: os.chmod(path, 0o600), lambda: os.utime(path, (1, 1)), lambda: os.utime(path),
          lambda: os.chown(path, -1, -1), lambda: os.lchown(path, os.getuid(), os.getgid()),
          lambda: os.setxattr(path, "system.posix_acl_access", acl), lambda: os.removexattr(path, "system.posix_acl_access"))
    for flags in (os.O_RDONLY, os.O_PATH):
        try: file = os.open(path, flags)
        except OSError: continue
        tried(lambda: os.fchmod(file, 0o600), lambda: os.utime(file, (1, 1)), lambda: os.fchown(file, -1, -1),
              lambda: os.chmod(f"/proc/self/fd/{file}", 0o600), lambda: os.utime(f"/proc/self/fd/{file}", (1, 1)),
              lambda: os.setxattr(file, "system.posix_acl_access", acl))
        os.close(file)
    for number in old: libc.syscall(number, path.encode(), 0o600)
    for number in common: libc.syscall(number, here, path.encode(), 0o600, 0)
    for command in (["chmod", "600", path], ["touch", "-d", "@1", path], ["chown", "nobody", path], ["rm", "-f", path]):
        subprocess.run(command, stderr=subprocess.DEVNULL)
def answer(): return 1
"""
# A mount namespace of the test's own, with nodes of its own on /dev: the machine's are never in reach.
NODES = """
set -e
mount -t tmpfs -o mode=755,dev nodes "$1"
while read name major minor; do mknod -m 666 "$1/$name" c "$major" "$minor"; done <<END
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
END
mkdir "$1/shm" "$1/pts"
mount --bind "$1" /dev
shift
exec "$@"
"""
CHANGED = """
import json, os, sys
from core.scoring.sandbox.sandbox import *
assert os.stat("/dev").st_dev == os.stat(sys.argv[1]).st_dev
def state():
    nodes = {name: os.stat("/dev/" + name) for name in os.listdir("/dev")}
    return {name: [node.st_mode, node.st_uid, node.st_gid, node.st_mtime_ns, node.st_ctime_ns] for name, node in nodes.items()}
before = state()
(outcome,) = run_programs([Program(sys.argv[2], sys.argv[3])])
after = state()
changed = [name for name in {*before, *after} if before.get(name) != after.get(name)]
print(json.dumps({"passed": outcome.passed, "reason": outcome.reason + outcome.output, "changed": changed}))
"""


def test_no_program_changes_the_machine_s_devices(tmp_path: Path) -> None:
    aside = ["unshare", "--mount", "--propagation", "private", "sh", "-c", NODES, "sh", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run([*aside, "true"], capture_output=True).returncode:
        pytest.skip("only root makes device nodes, in a mount namespace of its own")
    command = [*aside, sys.executable, "-c", CHANGED, str(tmp_path), CHANGES, TESTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert told["changed"] == []
    assert told["passed"], told["reason"]


def test_what_ordinary_programs_do_with_files_and_processes_works() -> None:
    outcome = run("""
        import asyncio, multiprocessing, os, shutil, subprocess, tarfile
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import shared_memory
        os.makedirs("tree")
        with open("tree/file", "w") as file: file.write("x")
        shutil.copy("tree/file", "copy")
        shutil.copytree("tree", "tree2")
        with tarfile.open("tree.tar", "w") as tar: tar.add("tree")
        with tarfile.open("tree.tar") as tar: tar.extractall("tree3")
        async def said(): return (await (await asyncio.create_subprocess_exec("echo", "x", stdout=-1)).communicate())[0]
        def answer():
            assert open("copy").read() == open("tree2/file").read() == open("tree3/tree/file").read() == "x"
            assert asyncio.run(said()) == subprocess.run("echo x | cat", shell=True, capture_output=True).stdout == b"x\\n"
            assert open("/dev/zero", "rb").read(3) == bytes(3) and len(open("/dev/urandom", "rb").read(3)) == 3
            memory = shared_memory.SharedMemory(create=True, size=10)
            memory.unlink()
            with ProcessPoolExecutor(2) as pool: return pool.submit(abs, -multiprocessing.Value("i", 1).value).result()
    """)
    assert outcome.passed, outcome.reason + outcome.output


# Limits

SHORT_CHILDREN = """
import ctypes, os, signal, time
libc, total = ctypes.CDLL(None), 0.0
class Action(ctypes.Structure):  # of glibc's sigaction
    _fields_ = [("handler", ctypes.c_void_p), ("mask", ctypes.c_ulong * 16), ("flags", ctypes.c_int), ("restorer", ctypes.c_void_p)]
def ignore():
    try: signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    except OSError: pass
def no_wait():
    libc.sigaction(signal.SIGCHLD, ctypes.byref(Action(flags=2)), None)  # SA_NOCLDWAIT
def burn(write):
    while time.process_time() < 0.04: pass
    os.write(write, str(time.process_time()).encode())
    os._exit(0)
def child(write):
    if os.fork() == 0: burn(write)
def orphan(write):
    if (first := os.fork()) == 0:
        child(write)
        os._exit(0)
    os.waitpid(first, 0)
HOW
while True:
    read, write = os.pipe()
    start(write)
    total += float(os.read(read, 99))
    os.close(read), os.close(write)
    print(total)
"""


@pytest.mark.parametrize(
    "how",
    [
        "ignore()\nstart = child",
        "no_wait()\nstart = child",
        "ignore(), no_wait()\nstart = orphan",
        "start = orphan",
        "libc.prctl(36, 1)\nignore()\nstart = orphan",  # PR_SET_CHILD_SUBREAPER
    ],
)
def test_processor_time_of_children_counts_however_they_end(how: str) -> None:
    outcome = run(SHORT_CHILDREN.replace("HOW", how), Limits(cpu_seconds=1, seconds=30))
    assert outcome.reason == "took more than 1 s of processor time", outcome.output
    assert 0 < float(outcome.output.split()[-2]) <= 1.5


MB = 1 << 20
HELD = """
import time
def hold():
HOW
print(hold(), flush=True)
time.sleep(600)
"""
SOCKETS = """
    import os, socket
    write = os.open("/tmp/held", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for child in range(30):
        if os.fork(): continue
        pairs = []
        try:
            while True:
                pairs.append(socket.socketpair())
                for one in pairs[-1]:
                    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                        try: one.setsockopt(socket.SOL_SOCKET, option, 1 << 24)
                        except OSError: pass
                    one.setblocking(False)
                    try:
                        while True: os.write(write, b"%d\\n" % one.send(bytes(1 << 16)))
                    except BlockingIOError: pass
        except OSError: time.sleep(600)
    while True:
        print(sum(map(int, open("/tmp/held").read().split())) >> 20, flush=True)
        time.sleep(0.01)
"""
MAPPINGS = """
    import ctypes, os
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    size, held = 32 << 20, 0
    try: zero = os.open("/dev/zero", os.O_RDWR)
    except OSError: zero = -1
    for flags in (0x21, 0x23, 0x40022, 0x1):  # shared and anonymous, huge, shared and of /dev/zero
        for _ in range(24):
            place = libc.mmap(None, size, 3, flags, zero if flags == 1 else -1, 0)
            if place in (None, 2**64 - 1): break
            ctypes.memset(place, 1, size)
            libc.munmap(place + 4096, size - 4096)  # the first page keeps all
            held += size >> 20
            print(held, flush=True)
    return held
"""


@pytest.mark.parametrize("how", [SOCKETS, MAPPINGS], ids=["sockets", "mappings"])
def test_memory_counts_wherever_it_lies(how: str) -> None:
    """Each tells how many MB it holds, of those that /proc shows nowhere."""
    limits = Limits(cpu_seconds=20, seconds=20 if how is SOCKETS else 4, memory_mb=320)
    outcome = run(HELD.replace("HOW", how), limits)
    held = [0, *map(int, outcome.output.split())][-1]
    assert held <= limits.memory_mb + 48, outcome.reason
    assert outcome.reason == ("more than 320 MB of memory" if how is SOCKETS else "took longer than 4 s"), (
        outcome.output
    )


def test_processes_of_programs_are_the_first_to_go_and_have_few_descriptors() -> None:
    code = """
        import os, resource
        def answer():
            assert os.fork() or os._exit(open("/proc/self/oom_score_adj").read() != "1000\\n") is None
            assert os.wait()[1] == 0 and open("/proc/self/oom_score_adj").read() == "1000\\n"
            return 1 if resource.getrlimit(resource.RLIMIT_NOFILE) == (64, 64) else 0
    """
    for jail in (choose_jail(), Unconfined()):
        outcome = run_program(Program(textwrap.dedent(code), TESTS), Limits(), jail)
        assert outcome.passed, outcome.reason
    assert Path("/proc/self/oom_score_adj").read_text() != "1000\n"
