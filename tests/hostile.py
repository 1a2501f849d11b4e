"""Files that a student should not hand in, with the reason that each must be given.

Every file is asked for f(x) with x = [1, 2] twice; right would be 2 x.
"""

from typing import NamedTuple


class Hostile(NamedTuple):
    name: str
    source: str
    reason: str  # pattern of the reason for the first call; "" where the answer is only wrong
    seconds: float = 10.0  # limit; what hangs gets LIMIT


LIMIT = 0.7
LATE = r"it takes more than 0.7 s"
RAISES = "it raises "
IMPORT = "on import it raises "
TABRL = "ImportError: tabrl is not available here: write the recursion yourself"
NUMPY = "import numpy as np\n"
LONG = ".*more than 8388608 bytes"
LEAVES = r"it leaves Python before all calls are made \(exit code {}\)"

HANGING = [
    Hostile("loop", "def f(x):\n while True: pass", LATE, LIMIT),
    Hostile("loop at import", "while True: pass", LATE, LIMIT),
    Hostile("sleep that catches all", """
import signal, time
for s in range(1, 60):
    try: signal.signal(s, signal.SIG_IGN)
    except (OSError, ValueError): pass
def f(x):
    while True:
        try: time.sleep(100)
        except BaseException: pass
""", LATE, LIMIT),
    Hostile("memory, again and again", """
def f(x):
    kept = []
    while True:
        try: kept.append(bytearray(50_000_000))
        except MemoryError: pass
""", LATE, LIMIT),
    Hostile("fork bomb that goes on", """
import os
def f(x):
    while True:
        try:
            os.fork()
            os.setsid()
        except OSError: pass
""", LATE, LIMIT),
    Hostile("thread bomb", """
import threading, time
def f(x):
    while True:
        try: threading.Thread(target=time.sleep, args=(100,)).start()
        except (RuntimeError, MemoryError): pass
""", LATE, LIMIT),
    Hostile("answer that never ends", """
class Items(dict):
    def __len__(self): return 1
    def items(self):
        while True: yield from ()
def f(x): return Items()
""", LATE, LIMIT),
    Hostile("recursion without limit", """
import sys
sys.setrecursionlimit(10**9)
def f(x): return f(x)
""", f"{LATE}|{RAISES}MemoryError|it is ended by signal SIGSEGV", LIMIT),
]  # fmt: skip

ATTACKS = [
    Hostile("memory bomb", "def f(x): return len(bytearray(10**11))", RAISES + "MemoryError"),
    Hostile("memory bomb of numpy", NUMPY + "def f(x): return np.ones((10**5, 10**5))", RAISES + ".*MemoryError"),
    Hostile("fork bomb", "import os\ndef f(x):\n while True: os.fork()", RAISES + "BlockingIOError"),
    Hostile("endless printing", "def f(x):\n while True: print('x' * 1000)", "it prints more than 100000 bytes"),
    Hostile("endless errors", "import os\nwhile True: os.write(2, b'x' * 1000)", "it prints more than 100000 bytes"),
    Hostile("exit at import", "import sys\nsys.exit(0)", r"on import it raises SystemExit: 0 \(line 2\)"),
    Hostile("hard exit at import", "import os\nos._exit(0)", LEAVES.format(0)),
    Hostile("exit", "import sys\ndef f(x): sys.exit('bye')", RAISES + "SystemExit: bye"),
    Hostile("hard exit", "import os\ndef f(x): os._exit(3)", LEAVES.format(3)),
    Hostile("abort", "import os\ndef f(x): os.abort()", "it is ended by signal SIGABRT"),
    Hostile("crash", "import ctypes\ndef f(x): ctypes.string_at(0)", "it is ended by signal SIGSEGV"),
    Hostile("suicide", "import os\ndef f(x): os.kill(os.getpid(), 9)", "it is ended by signal SIGKILL"),
    Hostile("numpy patched", """
import numpy as np
np.asarray = np.abs = np.max = np.array_equal = np.isfinite = lambda *x, **k: True
np.ndarray = np.float64 = int
def f(x): return x
""", ""),
    Hostile("grader patched", """
import sys, __main__
__main__.Channel.send = lambda self, kind, k, value: None
def f(x): return x * 2
""", LEAVES.format(0)),
    Hostile("grader told lies", """
import __main__
send = __main__.Channel.send
__main__.Channel.send = lambda self, kind, k, value: send(self, "passed", k, 10)
def f(x): return x
""", "it writes into the grader's channel"),
    Hostile("environment", """
import os
def f(x): return dict(os.environ)
""", ""),
    Hostile("marks forged", """
import gc, __main__
def f(x):
    [channel] = [o for o in gc.get_objects() if type(o) is __main__.Channel]
    channel.send("mark", 0, {"score": 100, "passed": True})
""", "it writes into the grader's channel"),
    Hostile("answers forged", """
import gc, os, __main__
[channel] = [o for o in gc.get_objects() if type(o) is __main__.Channel]
for k in range(2): channel.send("value", k, [0.0, 0.0])
channel.send("end", 2, "")
os._exit(0)
""", ""),
    Hostile("answers twice", """
import gc, __main__
[channel] = [o for o in gc.get_objects() if type(o) is __main__.Channel]
def f(x):
    channel.send("value", 0, 2 * x)
    return 2 * x
""", "it writes into the grader's channel"),
    Hostile("channel filled with junk", """
import os
for fd in range(3, 64):
    try: os.write(fd, b"\\xff" * 1000)
    except OSError: pass
def f(x): return 2 * x
""", "it writes into the grader's channel"),
    Hostile("channel emptied", """
import os
def f(x):
    for fd in range(3, 64):
        try: os.ftruncate(fd, 0)
        except OSError: pass
    os._exit(0)
""", LEAVES.format(0)),
    Hostile("channel blown up", """
import os
for fd in range(3, 64):
    try: os.ftruncate(fd, 16 * 2**20)
    except OSError: pass
def f(x): return 2 * x
""", "it (writes into the grader's channel|leaves Python)"),
    Hostile("channel closed", """
import os
def f(x):
    os.closerange(0, 64)
    return 2 * x
""", r"it leaves Python .*"),
    Hostile("recursion", "def f(x): return f(x)", RAISES + "RecursionError"),
    Hostile("tabrl", "def f(x):\n import tabrl\n return 2 * x", RAISES + TABRL),
    Hostile("tabrl.bellman", "from tabrl.bellman import q_from_v", IMPORT + "ImportError: tabrl is not"),
    Hostile("solutions beside it", """
def f(x): return open("../solutions/answer.txt").read()
""", RAISES + "(FileNotFoundError|PermissionError)"),
]  # fmt: skip

BROKEN = [
    Hostile("NaN", "def f(x): return x * float('nan')", ""),
    Hostile("wrong shape", "def f(x): return x[None]", ""),
    Hostile("nothing", "def f(x): pass", ""),
    Hostile("generator", "def f(x): yield from 2 * x", "what it returns cannot be read: it is of type generator"),
    Hostile("object", "def f(x): return object()", "what it returns cannot be read: it is of type object"),
    Hostile("array of objects", NUMPY + "def f(x): return np.array([object()] * 2)", ".*an array of object"),
    Hostile("huge array", NUMPY + "def f(x): return np.zeros(2 * 10**6)", LONG),
    Hostile("huge view", NUMPY + "def f(x): return np.broadcast_to(1.0, (10**6, 10**6))", LONG),
    Hostile("long list", "def f(x): return [1.0] * 10**7", LONG),
    Hostile("list in itself", "def f(x):\n x = []\n x.append(x)\n return x", ".*nested more than 20 deep"),
    Hostile("huge int", "def f(x): return 1 << 10**6", ".*an int of 1000001 bits"),
    Hostile("dict of a million", "def f(x): return dict.fromkeys(range(10**6), 1.0)", ".*a dict of 1000000 entries"),
    Hostile("long text", "def f(x): return 'a' * 10**7", LONG),
    Hostile("endless answer", """
class Items(dict):
    def items(self):
        while True: yield 1, 2
def f(x): return Items()
""", LONG),
    Hostile("error without words", """
class Mute(Exception):
    def __str__(self): raise self
def f(x): raise Mute
""", RAISES + "Mute: its message cannot be read"),
    Hostile("control characters", "def f(x): raise ValueError('\\x1b[2J\\n')", RAISES + "ValueError: \ufffd\\[2J "),
    Hostile("does not parse", "def f(x)\n    return x", r"on import it raises SyntaxError: expected ':' \(line 1\)"),
    Hostile("is not text", "\0\0\0", IMPORT + "(SyntaxError|ValueError)"),
    Hostile("brackets", "(" * 10**5, IMPORT + "(SyntaxError|MemoryError|RecursionError)"),
    Hostile("function missing", "def fs(x): return x", "it has no function 'f'; did you mean fs?"),
    Hostile("not a function", "f = 3", "it has no function 'f'; it defines no functions"),
    Hostile("too few arguments", "def f(): return 1", RAISES + "TypeError"),
]  # fmt: skip
