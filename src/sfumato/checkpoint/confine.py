"""Giving up what a process will not need, before it touches something that may be hostile.

`torch.load(weights_only=True)` decides which names a pickle may call. Should that decision be wrong, or its
parser have a fault, the process that runs it can still neither open a file or socket, start a program, nor
take more memory and time than its file deserves.
"""

import ctypes
import platform
import sys

# What a process needs that computes, reads what is open and writes what is open; nothing that opens,
# connects, starts, signals or looks into anything. Linux's numbers on x86_64 and aarch64.
_ALLOWED = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "getpid": (39, 172),
    "exit": (60, 93),
    "fsync": (74, 82),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "exit_group": (231, 94),
    "newfstatat": (262, 79),
    "getrandom": (318, 278),
    "rseq": (334, 293),
}
# Their places above, the processor as a filter sees it, and the number of the call that sets a filter.
_MACHINES = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}

_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _MACHINE = 0, 4
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050001
_NO_NEW_PRIVILEGES = 38
_SET_FILTER, _EVERY_THREAD = 1, 1


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("if_true", ctypes.c_ubyte),
        ("if_false", ctypes.c_ubyte),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def limit(memory: int, seconds: int, file_bytes: int) -> bool:
    """Let this process take `memory` bytes and processor `seconds` more than now, and write `file_bytes`.

    Returns whether the system holds it to all that, as Linux does.
    """
    try:
        import resource
    except ImportError:
        return False
    used = resource.getrusage(resource.RUSAGE_SELF)
    bounds = {
        resource.RLIMIT_CPU: int(used.ru_utime + used.ru_stime) + seconds,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_CORE: 0,
    }
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[0])
        bounds[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory
    for which, most in bounds.items():
        resource.setrlimit(which, (most, most))
    return sys.platform == "linux"


def seal() -> str:
    """From here on let this process compute and use what is open, and nothing else; what enforces that.

    On Linux it is the kernel (a seccomp filter, which needs no privilege): no file, socket or process can be
    opened or started, not even by native code. Elsewhere it is Python's audit hook, which binds Python code.
    """
    if sys.platform == "linux" and platform.machine() in _MACHINES and _filter(platform.machine()):
        return "seccomp"
    sys.addaudithook(_refuse)
    return "audit hook"


def _filter(machine: str) -> bool:
    """Install the filter: another processor's calling convention, or a call not listed, is refused."""
    column, name, number = _MACHINES[machine]
    calls = [numbers[column] for numbers in _ALLOWED.values()]
    rules = [
        (_LOAD, 0, 0, _MACHINE),
        (_JUMP_IF_EQUAL, 0, len(calls) + 1, name),
        (_LOAD, 0, 0, _NUMBER),
        *((_JUMP_IF_EQUAL, len(calls) - at, 0, call) for at, call in enumerate(calls)),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    program = _Program(len(rules), (_Instruction * len(rules))(*(_Instruction(*rule) for rule in rules)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return False
    return bool(libc.syscall(number, _SET_FILTER, _EVERY_THREAD, ctypes.byref(program)) == 0)


_HARMLESS = ("object.", "marshal.", "code.", "sys._getframe", "sys.excepthook", "array.", "gc.")


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if not event.startswith(_HARMLESS):
        raise PermissionError(f"{event} is refused")
