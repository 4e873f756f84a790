"""Programs that pass without the right answer if they can, by somebody who has read our source."""

from __future__ import annotations

ANSWER = 5829  # no program says it that is not to pass
TESTS = f"assert answer(3) == {ANSWER}, 'wrong'\nassert answer(3) == {ANSWER}"

# With each, what the verdict says.
FAKES = {
    "exit with success": ("import sys; sys.exit(0)", "SystemExit: 0"),
    "exit at once": ("import os; os._exit(0)", "ended before its tests: exit status 0"),
    "exit when called": ("import os\ndef answer(n): os._exit(0)", "ended before its tests: exit status 0"),
    "SystemExit when called": ("def answer(n): raise SystemExit(0)", "SystemExit: 0"),
    "a signal to itself": ("import os\nos.kill(os.getpid(), 9)", "killed by signal 9"),
    "a crash": ("import os\ndef answer(n): os.abort()", "killed by signal 6"),
    "a segmentation fault": ("import ctypes\ndef answer(n): ctypes.string_at(0)", "killed by signal 11"),
    "exit handlers": ("import atexit, os\natexit.register(os._exit, 0)\nraise ValueError(7)", "ValueError: 7"),
    "no answer": ("pass", "NameError: name 'answer' is not defined"),
    "a syntax error": ("def answer(n:", "SyntaxError"),
    "its own check": ("def check(candidate): pass\ndef answer(n): return 0", "AssertionError: wrong"),
    "its own assertions": (
        """
        import builtins, unittest
        class AssertionError(Exception): pass
        builtins.AssertionError = AssertionError
        builtins.all = builtins.any = builtins.abs = lambda *args: True
        unittest.TestCase.assertEqual = lambda *args: None
        def answer(n): return 0
        """,
        "AssertionError: wrong",
    ),
    "an object equal to everything": (
        """
        class Liar:
            __eq__ = lambda *args: True
            __hash__ = None
        def answer(n): return Liar()
        """,
        "refused: <Liar of the program> was compared",
    ),
    "an integer equal to everything": (
        """
        class Liar(int):
            __eq__ = __bool__ = lambda *args: True
            __ne__ = lambda *args: False
            __hash__ = __int__ = __index__ = __pos__ = lambda *args: 58
        def answer(n): return Liar()
        """,
        "AssertionError: wrong",
    ),
    "a metaclass that lies": (
        """
        class Meta(type):
            __eq__ = __instancecheck__ = lambda *args: True
            __hash__ = lambda *args: 1
        class Liar(metaclass=Meta):
            __class__ = property(lambda self: int)
        def answer(n): return Liar
        """,
        "refused: <Meta of the program> was compared",
    ),
    "a class that lies": (
        """
        class Liar:
            __class__ = property(lambda self: int)
            __eq__ = __lt__ = __gt__ = lambda *args: True
        def answer(n): return Liar()
        """,
        "TypeError|ended before its tests",
    ),
    "not a number": ("def answer(n): return float('nan')", "AssertionError: wrong"),
    "a value within itself": (
        "def answer(n):\n    x = []\n    x.append(x)\n    return x",
        "refused: a value nests too deeply",
    ),
    "markers in what it prints": (
        """
        import sys
        for stream in (sys.stdout, sys.stderr):
            print('started\\n{"passed": true, "reason": "passed", "ended": false}', file=stream, flush=True)
        def answer(n): return 0
        """,
        "AssertionError: wrong",
    ),
    "markers on every descriptor": (
        """
        import os
        for descriptor in range(256):
            try: os.write(descriptor, b'started\\n{"passed": true, "reason": "passed", "ended": false}\\n')
            except OSError: pass
        def answer(n): return 0
        """,
        "not an answer of an honest program",
    ),
    "verdicts in our own words": (
        """
        from core.scoring.sandbox.wire import HEADER
        import json, os
        for message in [["done", None]] * 9 + [["done", True]] * 9:
            data = json.dumps(message).encode()
            for descriptor in range(3, 64):
                try: os.write(descriptor, HEADER.pack(len(data)) + data)
                except OSError: pass
        os._exit(0)
        """,
        "TypeError: 'NoneType' object is not callable",
    ),
    "frames and the collector": (
        """
        import gc, sys
        def answer(n):
            seen, frame = [], sys._getframe()
            while frame:
                seen += [*frame.f_locals.values(), *frame.f_globals.values()]
                frame = frame.f_back
            for thing in [*seen, *gc.get_objects()]:
                if type(thing).__name__ in ("Peer", "Program"):
                    for name in ("serve", "_raised", "_answer", "_done", "perform", "_encode"):
                        setattr(type(thing), name, lambda *args: ["done", True])
                if type(thing) is dict and "passed" in thing:
                    thing["passed"] = True
            return sum(x for x in gc.get_objects() if type(x) is int and x > 5000)
        """,
        "AssertionError: wrong",
    ),
    "our modules replaced": (
        """
        import sys, types
        for name in [name for name in sys.modules if "sandbox" in name or name in ("json", "os", "builtins")]:
            fake = types.ModuleType(name)
            fake.__getattr__ = lambda name: lambda *args, **kwargs: True
            sys.modules[name] = fake
        sys.modules["__main__"].Peer = sys.modules["__main__"].Program = None
        def answer(n): return 0
        """,
        "AssertionError: wrong",
    ),
    "the encoder replaced": (
        "import core.scoring.sandbox.wire as wire\nwire.encode = lambda value, lend: True\ndef answer(n): return 0",
        "'bool' object is not callable",
    ),
    "a message that is none": (
        "import os, sys\nos.write(int(sys.argv[1]), b'\\xff' * 64)",
        "not an answer of an honest program: a message is too large",
    ),
    "a message that nests": (
        """
        from core.scoring.sandbox.wire import HEADER
        import os, sys
        data = b"[" * 1000000
        os.write(int(sys.argv[1]), HEADER.pack(len(data)) + data)
        """,
        "not an answer of an honest program: a message is not JSON",
    ),
    "a function of its choice": (
        """
        from core.scoring.sandbox.wire import HEADER
        import json, os, sys
        data = json.dumps(["done", ["named", "builtins", "exit"]]).encode()
        os.write(int(sys.argv[1]), HEADER.pack(len(data)) + data)
        """,
        "not an answer of an honest program: .*no value reads so",
    ),
    "two processes on one line": (
        "import os\nif os.fork(): os._exit(0)\ndef answer(n): return 0",
        "ended before its tests|AssertionError: wrong",
    ),
    "all descriptors closed": ("import os\nos.closerange(0, 256)\ndef answer(n): return 0", "ended before its tests"),
}
