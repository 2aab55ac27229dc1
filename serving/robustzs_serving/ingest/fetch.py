"""Images by URL, without lending the service's place in the network to whoever asks.

The host of a URL is resolved once. Every address must be public, and the connection is made to one
of these very addresses, while TLS and ``Host`` keep the name; so nothing can be swapped between
the check and the use. Redirects go through all of it again. No proxy, no cookie, no credential and
no environment variable takes part. What went wrong is told in two codes without details, since
details would make the service a scanner of the network around it.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache

import anyio
import httpcore
import httpx

from robustzs.errors import ImageTooLargeError
from robustzs_serving.errors import FieldValueError, UrlFailedError, UrlRefusedError
from robustzs_serving.ingest.addresses import Address, is_public
from robustzs_serving.settings import Limits

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Host and port to addresses; raises ``OSError`` where there are none."""

_PORT = 443
_REDIRECTS = (301, 302, 303, 307, 308)
_USER_AGENT = b"robustzs"


class Fetcher:
    """Fetches images.

    Args:
        limits: on time, size and redirects.
        resolve: finds the addresses of a host.
        allows: whether an address may be connected to.
        ports: that may be connected to.
        tls: trusted certificates; by default those that httpx brings.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        resolve: Resolve | None = None,
        allows: Callable[[Address], bool] = is_public,
        ports: Sequence[int] = (_PORT,),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._limits = limits
        self._resolve = resolve or resolve_host
        self._allows = allows
        self._ports = ports
        self._tls = tls

    async def fetch(self, url: str) -> bytes:
        """The content behind a URL.

        Raises:
            UrlRefusedError: not https, another port, or no public address.
            UrlFailedError: no answer in time, another status than 200, or too many redirects.
            ImageTooLargeError: more bytes than an image may have.
        """
        with anyio.move_on_after(self._limits.url_seconds):
            try:
                return await self._follow(url)
            except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as e:
                raise _failed("the host did not answer as a web server does") from e
        raise _failed(f"it took longer than {self._limits.url_seconds:g} s")

    async def _follow(self, url: str) -> bytes:
        target = parse_url(url, self._limits)
        for _ in range(self._limits.max_redirects + 1):
            found = await self._get(target)
            if isinstance(found, bytes):
                return found
            try:
                target = target.join(found)
            except httpx.InvalidURL as error:
                raise _failed("it was redirected to what is no URL") from error
        raise _failed(f"it was redirected more than {self._limits.max_redirects} times")

    async def _get(self, url: httpx.URL) -> bytes | str:
        """The content, or where the answer redirects to."""
        address = await self._checked_address(url)
        backend = _PinnedBackend(address, url.port or _PORT)
        async with httpcore.AsyncConnectionPool(
            ssl_context=self._tls or _default_tls(), network_backend=backend, max_connections=1
        ) as pool:
            target = httpcore.URL(
                scheme=b"https", host=url.raw_host, port=url.port, target=url.raw_path
            )
            headers = [
                (b"Host", url.netloc),
                (b"User-Agent", _USER_AGENT),
                (b"Accept", b"image/*"),
                (b"Accept-Encoding", b"identity"),
            ]
            async with pool.stream("GET", target, headers=headers) as response:
                return await self._read(response)

    async def _read(self, response: httpcore.Response) -> bytes | str:
        headers = {name.lower(): value for name, value in response.headers}
        if response.status in _REDIRECTS and b"location" in headers:
            return headers[b"location"].decode("latin-1")
        if response.status != 200:
            raise _failed("it did not answer with 200")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise _failed("its answer is compressed, which was not asked for")
        content = bytearray()
        async for chunk in response.aiter_stream():
            content += chunk
            if len(content) > self._limits.max_image_bytes:
                raise ImageTooLargeError(
                    f"the URL gives more than {self._limits.max_image_bytes} bytes"
                )
        return bytes(content)

    async def _checked_address(self, url: httpx.URL) -> Address:
        host = url.raw_host.decode("ascii")  # what goes over the wire, never decoded from IDNA
        if url.scheme != "https" or url.userinfo or not host:
            raise _refused()
        if (url.port or _PORT) not in self._ports:
            raise _refused()
        try:
            addresses = await self._resolve(host, url.port or _PORT)
        except (OSError, UnicodeError) as error:
            raise _refused() from error
        if not addresses or not all(map(self._allows, addresses)):
            raise _refused()
        return addresses[0]


def parse_url(text: str, limits: Limits) -> httpx.URL:
    """A URL as the one parser understands it that both the check and the request go by.

    Raises:
        FieldValueError: too long.
        UrlRefusedError: no URL.
    """
    if len(text) > limits.max_url_chars:
        raise FieldValueError(
            f"a URL has {len(text)} characters, the limit is {limits.max_url_chars}",
            param="image_url",
        )
    # Parsers differ in what they make of these; none belongs into a URL.
    if any(character <= " " or character in '\\"<>`{|}' for character in text):
        raise _refused()
    try:
        return httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise _refused() from error


async def resolve_host(host: str, port: int) -> Sequence[Address]:
    """The addresses of a host, by the system's resolver."""
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(entry[4][0]) for entry in found]


class _PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects to one address, whatever name is asked for."""

    def __init__(self, address: Address, port: int) -> None:
        self._address = address
        self._port = port
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        if port != self._port:
            raise httpcore.ConnectError(f"port {port} is not the one that was checked")
        return await self._backend.connect_tcp(
            str(self._address), port, timeout, local_address, socket_options
        )

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise httpcore.ConnectError("no sockets of this machine")

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


@lru_cache(maxsize=1)
def _default_tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


def _refused() -> UrlRefusedError:
    return UrlRefusedError(
        "the URL is refused",
        hint="it must be https, on port 443, of a host all of whose addresses are public",
    )


def _failed(why: str) -> UrlFailedError:
    return UrlFailedError(f"the URL gave no image: {why}")
