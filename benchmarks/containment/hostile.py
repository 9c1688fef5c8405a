"""What a task can do to the process that it runs in, by name: each function is a culprit."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import decimal
import gc
import json
import locale
import logging
import logging.config
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn

from django.conf import settings
from django.core.cache import cache
from django.db import connection

_kept: list[Any] = []
"""What culprits keep open for as long as the process lives."""


def _broken(*args: Any, **kwargs: Any) -> NoReturn:
    raise RuntimeError("replaced by a culprit")


class _Raises(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise ValueError("this handler raises")


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class _Endless(Exception):
    def __str__(self) -> str:
        time.sleep(10**6)
        return ""


class _Undead:
    def __del__(self) -> None:
        raise ValueError("raised in __del__")


def replace_stdout() -> None:
    sys.stdout = sys.stderr = None


def close_stderr() -> None:
    sys.stderr.close()


def chdir() -> None:
    os.chdir("/")


def set_locale() -> None:
    locale.setlocale(locale.LC_ALL, "C.UTF-8")


def umask() -> None:
    os.umask(0o777)


def set_signal_handler() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def alarm() -> None:
    signal.alarm(1)


def decimal_context() -> None:
    decimal.getcontext().prec = 2
    decimal.DefaultContext.prec = 2


def seed() -> None:
    random.seed(0)


def recursion_limit() -> None:
    sys.setrecursionlimit(60)


def switch_interval() -> None:
    sys.setswitchinterval(100)


def disable_gc() -> None:
    gc.disable()


def close_files() -> None:
    os.closerange(0, 51)


def close_files_above_two() -> None:
    os.closerange(3, 51)


def change_settings() -> None:
    settings.BEANSTALK_DISPATCH_TABLE = {}
    settings.BEANSTALK_WORKER = False
    settings.DEBUG = True
    settings.DATABASES = {}


def change_environment() -> None:
    os.environ.clear()


def patch_socket() -> None:
    socket.socket = _broken  # type: ignore[misc,assignment]
    socket.create_connection = _broken


def patch_sleep() -> None:
    time.sleep = lambda seconds: None


def patch_sleep_raises() -> None:
    time.sleep = _broken


def patch_json() -> None:
    json.dumps = _broken
    json.loads = _broken


def patch_thread() -> None:
    threading.Thread.start = _broken  # type: ignore[method-assign]


def socket_timeout() -> None:
    socket.setdefaulttimeout(0.0001)


def disable_logging() -> None:
    logging.disable(logging.CRITICAL)


def disable_loggers() -> None:
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})


def raising_handler() -> None:
    logging.getLogger().addHandler(_Raises())


def raising_filter() -> None:
    logging.getLogger("beanstalk_dispatch.task").addFilter(_broken)


def raising_record_factory() -> None:
    logging.setLogRecordFactory(_broken)


def raising_excepthook() -> None:
    threading.excepthook = _broken
    sys.excepthook = _broken
    sys.unraisablehook = _broken


def raising_trace() -> None:
    sys.settrace(_broken)
    threading.settrace(_broken)


def raising_profile() -> None:
    sys.setprofile(lambda *args: None)


def endless_threads() -> None:
    threading.Thread(target=time.sleep, args=(10**6,)).start()


def many_threads() -> None:
    with contextlib.suppress(RuntimeError):
        for _ in range(500):
            threading.Thread(target=time.sleep, args=(20,), daemon=True).start()


def exhaust_files() -> None:
    while True:
        _kept.append(os.open("/dev/null", os.O_RDONLY))


def lower_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))


def hanging_atexit() -> None:
    atexit.register(time.sleep, 10**6)


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def sigstop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def interrupt_main() -> None:
    import _thread

    _thread.interrupt_main()


def segfault() -> None:
    ctypes.string_at(0)


def overflow_stack() -> None:
    sys.setrecursionlimit(10**9)
    nested: Any = []
    for _ in range(10**6):
        nested = [nested]
    repr(nested)

    def recurse() -> int:
        return sum(recurse() for _ in (0,))

    recurse()


def raise_in_del() -> None:
    _Undead()
    raise ValueError(_Undead())


def huge_message() -> NoReturn:
    raise ValueError("x" * 50_000_000)


def huge_traceback() -> None:
    def nest(left: int) -> None:
        try:
            raise ValueError("y" * 100_000) if left == 0 else RuntimeError("z" * 1000)
        except Exception as exc:
            if left:
                try:
                    nest(left - 1)
                except Exception as inner:
                    raise inner from exc
            raise

    nest(300)


def unspeakable_error() -> NoReturn:
    raise _Unspeakable


def endless_error() -> NoReturn:
    raise _Endless


def execute_wrapper() -> None:
    connection.ensure_connection()
    connection.execute_wrappers.append(_broken)


def session_settings() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")


def statement_timeout() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 1")


def close_all_connections() -> None:
    connection.ensure_connection()
    connection.connection.close()


def clear_cache() -> None:
    cache.clear()


def orphan() -> None:
    _kept.append(subprocess.Popen(["sleep", "30"]))


def fork_and_stay() -> None:
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)


def hold_import_lock() -> None:
    import _imp

    _imp.acquire_lock()


def hold_thread_lock() -> None:
    threading._active_limbo_lock.acquire()  # type: ignore[attr-defined]


def stack_size() -> None:
    threading.stack_size(2**40)


def no_new_files_on_disk() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))


def cpu_limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (1, resource.RLIM_INFINITY))


def slow_del() -> None:
    """Leave garbage that keeps whichever thread collects it."""

    class Slow:
        def __del__(self) -> None:
            time.sleep(3)

    for _ in range(3):
        slow: Any = Slow()
        slow.itself = slow


def debug_gc() -> None:
    gc.set_debug(gc.DEBUG_LEAK)
    gc.set_threshold(1)


def raising_gc_callback() -> None:
    gc.callbacks.append(_broken)


def patch_builtins() -> None:
    import builtins

    builtins.open = builtins.print = _broken


def patch_import() -> None:
    import builtins

    builtins.__import__ = _broken


def clear_path() -> None:
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()


def clear_modules() -> None:
    for name in ("json", "socket", "django.db", "django.core.cache"):
        sys.modules[name] = None  # type: ignore[assignment] # an import of it then fails


def leave_loop() -> None:
    asyncio._set_running_loop(asyncio.new_event_loop())


def audit_hook() -> None:
    sys.addaudithook(lambda event, args: _broken() if event == "open" else None)


def trace_all_threads() -> None:
    threading.settrace_all_threads(_broken)


def interrupt_all_threads() -> None:
    raises = ctypes.pythonapi.PyThreadState_SetAsyncExc
    for thread in threading.enumerate():
        raises(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))


def interrupt_service_threads() -> None:
    raises = ctypes.pythonapi.PyThreadState_SetAsyncExc
    for thread in threading.enumerate():
        if "task-" not in thread.name and "ThreadPool" not in thread.name:
            raises(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))


def join_all_threads() -> None:
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(0.5)


def shut_logging_down() -> None:
    logging.shutdown()
    for handler in logging.getLogger().handlers:
        handler.close()


def spoil_connection() -> None:
    connection.ensure_connection()
    connection.needs_rollback = True
    connection.in_atomic_block = True
    connection.savepoint_ids = ["x"]


def replace_close() -> None:
    connection.ensure_connection()
    connection.close = _broken  # type: ignore[method-assign]


def replace_ensure_connection() -> None:
    connection.ensure_connection = _broken  # type: ignore[method-assign]


def autocommit_off() -> None:
    connection.set_autocommit(False)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def spoil_settings_dict() -> None:
    connection.close()
    connection.settings_dict["HOST"] = "127.0.0.2"


def cancel_backends() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        )


def server_timezone() -> None:
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()


def signal_receivers() -> None:
    from django.core.signals import request_finished, request_started

    request_started.connect(_broken, weak=False)
    request_finished.connect(_broken, weak=False)


def clear_caches_of_settings() -> None:
    from django.test.signals import setting_changed

    setting_changed.send(sender=None, setting="DATABASES", value={}, enter=True)


def circular_error() -> NoReturn:
    exc = ValueError("circular")
    exc.__cause__ = ExceptionGroup("group", [exc])
    raise exc


def lying_error() -> NoReturn:
    class Lies(Exception):
        @property  # type: ignore[misc]
        def __class__(self) -> Any:
            raise RuntimeError

        __notes__ = 5  # type: ignore[assignment]

    raise Lies


def itimer() -> None:
    signal.setitimer(signal.ITIMER_PROF, 0.01, 0.01)


def cancel_stack_dump() -> None:
    import faulthandler

    faulthandler.cancel_dump_traceback_later()
    faulthandler.disable()


def lower_memory_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1, hard))


def close_sockets() -> None:
    """Close every socket of the process, listening ones too."""
    for number in range(3, 200):
        with contextlib.suppress(OSError):
            socket.socket(fileno=os.dup(number)).shutdown(socket.SHUT_RDWR)


def own_worker() -> None:
    from django.core.management import call_command

    call_command("beanstalk_worker", "jobs", "--burst", "--wait=0")


def zombies() -> None:
    for _ in range(50):
        if os.fork() == 0:
            os._exit(0)


def reap_all() -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, os.WNOHANG)


def spoil_delivery() -> None:
    from beanstalk_dispatch.running.running_tasks import RUNNING

    for task in RUNNING.now():
        if task.message.function == "hostile":
            for of, name in (
                (task.delivery, "queue"),
                (task.message, "id"),
                (task.message, "function"),
            ):
                object.__setattr__(of, name, None)


def nested_limits() -> None:
    from beanstalk_dispatch.running.limits.time_limit import time_limit

    time_limit(0.01).__enter__()
    time.sleep(0.1)


CULPRITS: Final[dict[str, Callable[[], Any]]] = {
    name.replace("_", "-"): value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__module__", "") == __name__ and name[0] != "_"
}


def hostile(run: str, name: str) -> None:
    """Do what the name says."""
    CULPRITS[name]()
