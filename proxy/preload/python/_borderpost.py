"""What makes Python clients use the proxy that read no variable for it, and trust it whatever bundle they bring.

It runs in the agent's own Python, 3.8 or later, beside its packages, and is never imported by Borderpost. So it imports
nothing but the standard library, changes a package only after the program has imported it, and lets nothing escape: a
failure is written to `failures` in the directory above, for `borderpost doctor`. BORDERPOST_NO_PRELOAD=1 turns it off.

- ssl: a client context that checks certificates trusts our authority besides (stripe and many others bring a list).
- aiohttp: a session that has no proxy takes that of the environment.
- urllib3: a `PoolManager` used directly is a `ProxyManager` of the environment's proxy.
- httplib2: knows proxies only where PySocks is installed, and else goes round them: here it learns to open a tunnel.
"""

from __future__ import annotations

import os
import sys
from functools import wraps
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any, Callable, Dict, Optional, Sequence

_HERE = os.path.dirname(os.path.abspath(__file__))
_PRELOAD = os.path.dirname(_HERE)
_FAILURES_CAP_BYTES = 64 * 1024
_ANSWER_CAP_BYTES = 64 * 1024


def start() -> None:
    """Patch what is imported already, and the rest as soon as it is."""
    off = os.environ.get("BORDERPOST_NO_PRELOAD", "").lower() not in ("", "0", "false", "no")
    if off or _proxy("https") is None:
        return
    for name in _PATCHES:
        if name in sys.modules:
            _patch(sys.modules[name])
    sys.meta_path.insert(0, _Finder())  # a finder needs no more than `find_spec`


def other_sitecustomize() -> Optional[ModuleType]:
    """The `sitecustomize` that would have been imported, were ours (and that of a `run` around this) not there."""
    path = [entry for entry in sys.path if not os.path.exists(os.path.join(entry, "_borderpost.py"))]
    spec = PathFinder.find_spec("sitecustomize", path)
    return module_from_spec(spec) if spec is not None and spec.loader is not None else None


def _proxy(scheme: str) -> str | None:
    """The proxy that the environment names for `scheme`."""
    name = f"{'http' if scheme in ('http', 'ws') else 'https'}_proxy"
    return os.environ.get(name) or os.environ.get(name.upper())


def _is_bypassed(host: str) -> bool:
    """Whether NO_PROXY, which is empty under `run`, names `host` by now."""
    if not (os.environ.get("no_proxy") or os.environ.get("NO_PROXY")):
        return False
    from urllib.request import proxy_bypass

    return bool(proxy_bypass(host))


# --- after an import ---


class _Finder:
    """First on `sys.meta_path`: finds nothing itself, but sees to it that some modules are patched once they ran."""

    def __init__(self) -> None:
        self._finding: set[str] = set()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in _PATCHES or name in self._finding:
            return None
        self._finding.add(name)
        try:
            for finder in sys.meta_path:
                find = getattr(finder, "find_spec", None)
                spec: ModuleSpec | None = find(name, path, target) if find is not None and finder is not self else None
                if spec is not None:
                    if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                        spec.loader = _Loader(spec.loader)  # type: ignore[assignment]  # stands for any loader
                    return spec
            return None
        finally:
            self._finding.discard(name)


class _Loader:
    """A module's own loader, and then the patch."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _patch(module)


def _patch(module: ModuleType) -> None:
    try:
        _PATCHES[module.__name__](module)
    except Exception as error:  # the program goes on as without us
        _note(module.__name__, error)


def _note(what: str, error: Exception) -> None:
    """Write a failure down, where there is room for it."""
    try:
        path = os.path.join(_PRELOAD, "failures")
        if not os.path.exists(path) or os.path.getsize(path) < _FAILURES_CAP_BYTES:
            version = ".".join(str(part) for part in sys.version_info[:3])
            text = str(error).partition("\n")[0]
            with open(path, "a", encoding="utf-8") as file:
                file.write(f"python {version}: {what}: {type(error).__name__}: {text}\n")
    except Exception:  # nobody can be told
        pass


# --- the patches ---


def _patch_ssl(ssl: Any) -> None:
    """Our authority is added when a context is first used as a client's, so that whoever lists it sees no more."""
    with open(os.path.join(_PRELOAD, "ca.pem"), encoding="ascii") as file:
        authority = file.read()

    def trusting(method: Any) -> Any:
        @wraps(method)
        def wrapped(self: Any, *args: Any, **options: Any) -> Any:
            try:
                checks = not _is_server(method.__name__, args, options) and self.verify_mode != ssl.CERT_NONE
                if checks and not getattr(self, "_borderpost", False):
                    self.load_verify_locations(cadata=authority)
                    self._borderpost = True
            except Exception as error:  # the handshake goes on as without us
                _note("ssl", error)
            return method(self, *args, **options)

        return wrapped

    ssl.SSLContext.wrap_socket = trusting(ssl.SSLContext.wrap_socket)
    ssl.SSLContext.wrap_bio = trusting(ssl.SSLContext.wrap_bio)


def _is_server(method: str, args: Any, options: Any) -> bool:
    """Whether `server_side` was given: the 2nd argument of `wrap_socket`, the 3rd of `wrap_bio`."""
    place = 1 if method == "wrap_socket" else 2
    return bool(options.get("server_side", args[place] if len(args) > place else False))


def _patch_aiohttp(client: Any) -> None:
    """As if the proxy had been given with each request. Not `trust_env`: that would send what is in .netrc, too."""
    request = client.ClientSession._request

    @wraps(request)
    async def through(self: Any, method: Any, url: Any, **options: Any) -> Any:
        if options.get("proxy") is None and getattr(self, "_default_proxy", None) is None and not self._trust_env:
            connector = getattr(self, "_connector", None)
            if isinstance(connector, client.TCPConnector):
                whole = getattr(self, "_build_url", client.URL)(url)
                if whole.scheme in ("http", "https", "ws", "wss") and not _is_bypassed(whole.host or ""):
                    options["proxy"] = _proxy(whole.scheme)
        return await request(self, method, url, **options)

    client.ClientSession._request = through


def _patch_urllib3(poolmanager: Any) -> None:
    """A plain manager hands its requests to one that has a proxy, with the same settings."""
    from base64 import b64encode
    from urllib.parse import unquote, urlsplit

    plain = poolmanager.PoolManager
    urlopen = plain.urlopen

    def proxied(self: Any, url: str) -> Any:
        parts = urlsplit(url)
        proxy = _proxy(parts.scheme) if parts.scheme in ("http", "https") else None
        if getattr(self, "proxy", None) is not None or proxy is None or _is_bypassed(parts.hostname or ""):
            return None
        made = self.__dict__.get("_borderpost")
        if made is None:
            named = urlsplit(proxy)
            login = b64encode(f"{unquote(named.username or '')}:{unquote(named.password or '')}".encode()).decode()
            settings = dict(self.connection_pool_kw)
            settings.pop("headers", None)
            made = poolmanager.ProxyManager(
                proxy,
                num_pools=self.pools._maxsize,
                headers=self.headers,
                proxy_headers={"proxy-authorization": f"Basic {login}"} if named.username else None,
                **settings,
            )
            self._borderpost = made
        return made

    @wraps(urlopen)
    def through(self: Any, method: str, url: str, *args: Any, **options: Any) -> Any:
        other = None
        try:
            other = proxied(self, url)
        except Exception as error:  # the request goes on as without us
            _note("urllib3", error)
        if other is None:
            return urlopen(self, method, url, *args, **options)
        return other.urlopen(method, url, *args, **options)

    plain.urlopen = through


def _patch_httplib2(httplib2: Any) -> None:
    """As much of PySocks as it uses for an HTTP proxy."""
    if httplib2.socks is not None:
        return
    import socket
    from base64 import b64encode

    class Tunnel(socket.socket):
        _login: str = ""

        def setproxy(
            self, kind: Any, host: str, port: int, rdns: Any = None, user: Any = None, word: Any = None
        ) -> None:
            self._at = (host, port)
            self._login = f"{user or ''}:{word or ''}" if user or word else ""

        def connect(self, address: Any) -> None:
            super().connect(self._at)
            there = f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
            head = f"CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n"
            if self._login:
                head += f"Proxy-Authorization: Basic {b64encode(self._login.encode()).decode()}\r\n"
            self.sendall(f"{head}\r\n".encode("latin-1"))
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                piece = self.recv(1)  # no byte of what comes after may be taken
                if not piece or len(answer) > _ANSWER_CAP_BYTES:
                    raise OSError("the proxy gave no answer to CONNECT")
                answer += piece
            if answer.split(b" ", 2)[1][:1] != b"2":
                raise OSError(f"the proxy refused a tunnel to {there}: {answer.splitlines()[0].decode('latin-1')}")

    stand_in = ModuleType("socks")
    stand_in.socksocket = Tunnel  # type: ignore[attr-defined]
    httplib2.socks = stand_in


_PATCHES: Dict[str, Callable[[Any], None]] = {
    "ssl": _patch_ssl,
    "aiohttp.client": _patch_aiohttp,
    "urllib3.poolmanager": _patch_urllib3,
    "httplib2": _patch_httplib2,
}
"""Module -> what to do with it when it has been imported."""
