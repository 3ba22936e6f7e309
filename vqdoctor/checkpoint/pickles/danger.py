"""Which names in a pickle could run something when an ordinary unpickler reads it.

A name counts if calling it, or calling what it returns, can start a program, evaluate code, import
a module, write a file or open a connection. A list can never be complete: whatever is not on it is
still left inert and named in the report.
"""

from __future__ import annotations

from vqdoctor.checkpoint.tree import Global


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


_MODULES = words(
    """
    os posix nt subprocess sys runpy importlib imp pkgutil zipimport shutil socket socketserver ssl
    ctypes cffi _ctypes pickle _pickle cPickle dill cloudpickle joblib marshal shelve webbrowser pty code
    codeop commands popen2 timeit pdb bdb profile cProfile trace pydoc idlelib doctest unittest pytest
    http urllib urllib2 urllib3 requests httplib httpx aiohttp ftplib smtplib telnetlib xmlrpc asyncio
    multiprocessing threading _thread concurrent signal resource fcntl mmap pip ensurepip venv
    setuptools distutils site builtin gc inspect linecache tempfile fileinput io _io codecs
    _posixsubprocess _winapi winreg msvcrt platform sqlite3 dbm anydbm dumbdbm gdbm whichdb
    logging wsgiref zipfile tarfile zipapp lib2to3 antigravity atexit sched select selectors
    SocketServer BaseHTTPServer SimpleHTTPServer CGIHTTPServer xmlrpclib SimpleXMLRPCServer DocXMLRPCServer
    fsspec smart_open huggingface_hub paramiko fabric invoke sh plumbum pexpect ray dask cloudpathlib
    """
)
"""Top-level modules of which any name counts; `_codecs.encode` (plain bytes) is not among them."""

_BUILTINS = words(
    "eval exec execfile compile __import__ getattr setattr delattr open file input raw_input breakpoint "
    "globals locals vars apply reload exit quit"
)

_NAMES = words(
    """
    types.FunctionType types.CodeType types.LambdaType types.MethodType types.ModuleType types.coroutine
    operator.attrgetter operator.methodcaller _operator.attrgetter _operator.methodcaller
    numpy.load numpy.save numpy.fromfile numpy.f2py numpy.distutils numpy.testing
    torch.load torch.save torch.hub torch.jit torch.package torch.ops torch.classes torch.compile
    torch.serialization.load torch.storage._load_from_bytes torch.utils.cpp_extension
    torch.utils.data.datapipes torch.utils.collect_env torch.utils.bottleneck torch.utils._config_module
    torch._inductor torch._dynamo torch.fx torch.distributed.rpc torch.distributed.run torch.multiprocessing
    torch.testing torch.utils.model_zoo torch.utils.data.dataloader pandas.read_pickle pandas.eval pandas.io
    numpy.lib.npyio numpy.core.records numpy.memmap tensorflow.keras.models keras.models
    """
)
"""Names, and modules below harmless ones, with everything under them."""

_HARMLESS = frozenset({"codecs.encode", "io.BytesIO", "io.StringIO", "_io.BytesIO", "_io.StringIO"})


def could_execute(name: Global) -> bool:
    """Return whether an ordinary unpickler could be made to execute something through this name."""
    full = str(name)
    if full in _HARMLESS:
        return False
    parts = full.split(".")
    if parts[0] in ("builtins", "__builtin__"):
        return parts[1] in _BUILTINS or len(parts) > 2
    if parts[0] in _MODULES:
        return True
    if any(".".join(parts[:n]) in _NAMES for n in range(2, len(parts) + 1)):
        return True
    # Protocol 4 lets a name walk attributes: "collections abc.sys.modules", "Linear.__init__.__globals__",
    # "pathlib Path.unlink".
    steps = name.name.split(".")
    if len(steps) == 1:
        return False
    return parts[0] == "pathlib" or any(step in _MODULES or step.startswith("__") for step in steps)
