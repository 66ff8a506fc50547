"""Names that exist only on POSIX systems are used behind a guard, so that the other systems get a fallback."""

import ast

from tests.paths import ROOT

POSIX = {
    "os": (
        *("fork", "pread", "preadv", "pwrite", "pwritev", "sendfile", "copy_file_range", "memfd_create", "pipe2", "fdatasync", "sync"),
        *("sched_getaffinity", "sched_setaffinity", "statvfs", "fstatvfs", "sysconf", "getloadavg", "uname", "nice", "getpriority"),
        *("chown", "fchown", "lchown", "fchmod", "fchdir", "chroot", "mkfifo", "mknod", "getxattr", "setxattr", "lockf", "ttyname"),
        *("getuid", "geteuid", "getgid", "getegid", "getgroups", "setsid", "setpgid", "getpgid", "killpg", "wait", "wait3", "wait4"),
        *("WNOHANG", "O_NONBLOCK", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "O_SYNC", "O_DSYNC", "O_PATH", "O_TMPFILE"),
        *("register_at_fork", "posix_fadvise", "posix_fallocate", "set_blocking"),
    ),
    "signal": (
        *("SIGKILL", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGCHLD", "SIGSTOP", "SIGCONT", "SIGTSTP"),
        *("alarm", "setitimer", "pthread_sigmask", "pthread_kill", "sigwait", "pause"),
    ),
    "socket": ("AF_UNIX", "SO_REUSEPORT", "send_fds", "recv_fds"),
    "subprocess": ("preexec_fn", "pass_fds", "start_new_session", "process_group"),
}
MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix"}

GUARDED = {
    ("runtimes/host/facts.py", "os.sched_getaffinity"),  # hasattr
    ("runtimes/host/facts.py", "os.sysconf"),  # AttributeError is suppressed
    ("runtimes/storage/atomic_write.py", "fcntl"),  # ImportError
    ("runtimes/verification/sandbox.py", "resource"),  # ImportError
    ("runtimes/workers/parent.py", "os.memfd_create"),  # sys.platform
    ("toolkit/cli.py", "signal.SIGHUP"),  # hasattr
    ("toolkit/distribute/stores/local.py", "os.pread"),  # hasattr
    ("toolkit/serve/server.py", "resource"),  # ImportError
}
"""(File, name), each with its guard."""


def posix_names(source):
    """Yield the POSIX-only names in a module's source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in POSIX.get(node.value.id, ()):
            yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{name.name}" for name in node.names if name.name in POSIX.get(node.module, ()))
            yield from {node.module} & MODULES
        elif isinstance(node, ast.Import):
            yield from {name.name for name in node.names} & MODULES
        elif isinstance(node, ast.keyword) and node.arg in POSIX["subprocess"]:
            yield f"subprocess.{node.arg}"


def test_posix_names_have_a_guard():
    used = {
        (str(file.relative_to(ROOT)), name)
        for package in ("runtimes", "exporters", "toolkit")
        for file in (ROOT / package).rglob("*.py")
        for name in posix_names(file.read_text())
    }
    assert used == GUARDED


def test_each_way_to_use_a_name_is_found():
    source = "import os, fcntl\nfrom os import fork\nfrom pwd import getpwuid\nos.killpg(1, 9)\nsubprocess.run([], preexec_fn=f)"
    assert set(posix_names(source)) == {"fcntl", "os.fork", "pwd", "os.killpg", "subprocess.preexec_fn"}
