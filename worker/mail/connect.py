"""A TCP connection to the first address of a host that answers (RFC 8305, "Happy Eyeballs").

outlook.office365.com has several IPv6 addresses, and a network with broken IPv6 swallows packets. The standard library
tries the addresses one after the other, a whole time limit for each. asyncio can do better, but uvloop cannot.
"""

import asyncio
import errno
import os
import selectors
import socket
from collections import deque
from collections.abc import Iterable
from itertools import chain, zip_longest

from worker.domain.proxy import Proxy
from worker.mail.deadline import Deadline
from worker.mail.tunnel import open_tunnel, open_tunnel_async

_NEXT_ADDRESS = 0.25  # seconds before the next address is tried as well: RFC 8305 section 8

Address = tuple[int, int, int, str, tuple[object, ...]]  # as of socket.getaddrinfo


def connect(
    host: str, port: int, deadline: Deadline, *, turned: bool = False, proxy: Proxy | None = None
) -> socket.socket:
    """A connection, through the proxy if there is one. Raises as ``_connect_to`` does, and ProxyRefused."""
    if proxy is None:
        return _connect_to(host, port, deadline, turned=turned)
    connection = _connect_to(proxy.host, proxy.port, deadline, turned=turned)
    try:
        open_tunnel(connection, proxy, host, port, deadline)
    except BaseException:
        connection.close()
        raise
    return connection


async def connect_async(host: str, port: int, *, turned: bool = False, proxy: Proxy | None = None) -> socket.socket:
    """The same for asyncio, non-blocking; its time limit is the caller's."""
    if proxy is None:
        return await _connect_async_to(host, port, turned=turned)
    connection = await _connect_async_to(proxy.host, proxy.port, turned=turned)
    try:
        await open_tunnel_async(connection, proxy, host, port)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_to(host: str, port: int, deadline: Deadline, *, turned: bool) -> socket.socket:
    """``turned``: the address family that the system prefers comes last. The name look-up is the system's.

    Raises OSError: that of the last address which failed, or TimeoutError.
    """
    waiting = _interleaved(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), turned=turned)
    failure: OSError = TimeoutError("no address of the host answers")
    with selectors.DefaultSelector() as selector:
        try:
            while (waiting or selector.get_map()) and deadline.left:
                try:
                    if waiting:
                        selector.register(_dial(waiting.popleft()), selectors.EVENT_WRITE)
                    patience = min(_NEXT_ADDRESS, deadline.left) if waiting else deadline.left
                    for key, _ in selector.select(patience):
                        return _connected(_taken(selector, key))
                except OSError as error:
                    failure = error
            raise failure
        finally:
            for key in list(selector.get_map().values()):
                _taken(selector, key).close()


async def _connect_async_to(host: str, port: int, *, turned: bool) -> socket.socket:
    loop = asyncio.get_running_loop()
    waiting = _interleaved(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), turned=turned)
    racing: set[asyncio.Task[socket.socket]] = set()
    failure: BaseException = OSError("the host has no address")
    try:
        while waiting or racing:
            if waiting:
                racing.add(loop.create_task(_dial_async(waiting.popleft())))
            patience = _NEXT_ADDRESS if waiting else None
            done, _ = await asyncio.wait(racing, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                racing.discard(task)
                if (error := task.exception()) is None:
                    return task.result()
                failure = error
        raise failure
    finally:
        for task in racing:
            _call_off(task)


def _interleaved(addresses: Iterable[Address], *, turned: bool) -> deque[Address]:
    """The families in turn, beginning with the one that the system prefers, or ending with it."""
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    in_turn = list(families.values())[:: -1 if turned else 1]
    return deque(each for each in chain.from_iterable(zip_longest(*in_turn)) if each)


def _dial(address: Address) -> socket.socket:
    """A socket that is being connected; most failures show only once it is ready."""
    family, kind, number, _, target = address
    connection = socket.socket(family, kind, number)
    connection.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return _succeeded(connection, connection.connect_ex(target))


def _connected(connection: socket.socket) -> socket.socket:
    return _succeeded(connection, connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def _succeeded(connection: socket.socket, code: int) -> socket.socket:
    if code in {0, errno.EINPROGRESS}:
        return connection
    connection.close()
    raise OSError(code, os.strerror(code))


async def _dial_async(address: Address) -> socket.socket:
    family, kind, number, _, target = address
    connection = socket.socket(family, kind, number)
    try:
        connection.setblocking(False)  # noqa: FBT003 - the standard library's signature
        await asyncio.get_running_loop().sock_connect(connection, target)
    except BaseException:
        connection.close()
        raise
    return connection


def _taken(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> socket.socket:
    selector.unregister(key.fileobj)
    assert isinstance(key.fileobj, socket.socket)
    return key.fileobj


def _call_off(task: "asyncio.Task[socket.socket]") -> None:
    if not task.cancel() and not task.cancelled() and task.exception() is None:
        task.result().close()
