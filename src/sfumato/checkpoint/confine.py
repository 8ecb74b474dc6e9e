"""Giving up what a process will not need, before it touches something that may be hostile."""

import ctypes
import platform
import sys

# What a process needs that computes, reads what is open and writes what is open; nothing that opens,
# connects, starts, signals or looks into anything. The numbers are Linux's own, of each processor.
_ALLOWED = {
    "x86_64": {
        "read": 0,
        "write": 1,
        "close": 3,
        "fstat": 5,
        "lseek": 8,
        "mmap": 9,
        "mprotect": 10,
        "munmap": 11,
        "brk": 12,
        "rt_sigaction": 13,
        "rt_sigprocmask": 14,
        "rt_sigreturn": 15,
        "pread64": 17,
        "readv": 19,
        "writev": 20,
        "sched_yield": 24,
        "mremap": 25,
        "madvise": 28,
        "getpid": 39,
        "exit": 60,
        "fsync": 74,
        "gettid": 186,
        "futex": 202,
        "sched_getaffinity": 204,
        "restart_syscall": 219,
        "clock_gettime": 228,
        "exit_group": 231,
        "newfstatat": 262,
        "getrandom": 318,
        "rseq": 334,
    },
    "aarch64": {
        "read": 63,
        "write": 64,
        "close": 57,
        "fstat": 80,
        "lseek": 62,
        "mmap": 222,
        "mprotect": 226,
        "munmap": 215,
        "brk": 214,
        "rt_sigaction": 134,
        "rt_sigprocmask": 135,
        "rt_sigreturn": 139,
        "pread64": 67,
        "readv": 65,
        "writev": 66,
        "sched_yield": 124,
        "mremap": 216,
        "madvise": 233,
        "getpid": 172,
        "exit": 93,
        "fsync": 82,
        "gettid": 178,
        "futex": 98,
        "sched_getaffinity": 123,
        "restart_syscall": 128,
        "clock_gettime": 113,
        "exit_group": 94,
        "newfstatat": 79,
        "getrandom": 278,
        "rseq": 293,
    },
}
# The processor as a filter sees it, and the number of the call that sets one for every thread.
_MACHINES = {"x86_64": (0xC000003E, 317), "aarch64": (0xC00000B7, 277)}

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
    name, number = _MACHINES[machine]
    calls = list(_ALLOWED[machine].values())
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
