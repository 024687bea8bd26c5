"""A teacher behind an OpenAI-compatible endpoint: one request an attempt, and what became of it in the house's words.

It speaks HTTP by aiohttp: the `openai` client alone takes several times the processor time of all that is done here
for a request, the store included (benchmarks/asking.py).
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from shoestring.models.teacher.limits import retry_after
from shoestring.models.teacher.replies import read, words_of
from shoestring.models.teacher.words import Forbidden, Parameters, Question, Refused, Reply, Unanswered

if TYPE_CHECKING:
    from aiohttp import ClientSession

_AGAIN = {408, 409, 425, 429}  # and all from 500 on
_DOUBTFUL = {502, 504, 520, 524}  # of a gateway whose server may have answered: 520 and 524 are Cloudflare's


class Endpoint:
    """A model that a server offers.

    model         the name by which the server knows it
    url           the server's base, up to /v1; else that of OPENAI_BASE_URL, else OpenAI's own
    api_key       else that of OPENAI_API_KEY; none is sent where there is none
    timeout       seconds for an answer, connecting included
    length_field  the request's field for the longest answer: some models of OpenAI want max_completion_tokens
    Proxies are those of the environment, none on this machine itself. Raises ValueError on a URL that is none.
    """

    def __init__(
        self,
        model: str,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 300.0,
        length_field: str = "max_tokens",
    ) -> None:
        _needs_aiohttp()
        self.model = model
        self.url = _base(url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1")
        self._key = (api_key or os.environ.get("OPENAI_API_KEY") or "").strip()
        if not self._key.isascii() or not self._key.isprintable():
            raise ValueError("the API key holds characters that no key has: was it copied whole?")
        self._timeout, self._length_field = timeout, length_field
        self._proxy = _proxy(self.url)
        self._session: ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending = 0

    async def complete(self, question: Question, parameters: Parameters, key: str) -> Reply:
        """The reply to one attempt; `key` goes along, so that a server that heeds it charges a repeated one once."""
        import aiohttp

        sent = self._body(question, parameters)
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        session = self._open()
        self._pending += 1
        try:
            async with session.post(
                f"{self.url}/chat/completions", data=sent, headers=headers, proxy=self._proxy, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise await self._failure(response)
                body = await response.read()
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            raise ValueError(
                f"{self.url}: no secure connection ({error}): is it https, and its certificate known?"
            ) from None
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unanswered(f"{self.url} cannot be reached ({_reason(error)})", reached=False) from None
        except TimeoutError:
            raise Unanswered(f"{self.url}: no answer within {self._timeout:g} s", maybe=True) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise Unanswered(f"{self.url}: the connection broke ({reason})", maybe=True) from None
        finally:
            self._pending -= 1
        replayed = response.headers.get("Idempotent-Replayed", "").lower() == "true"
        return read(body, question, parameters, self.model, replayed)

    async def close(self) -> None:
        """Close the connections, unless another call still waits for an answer on them."""
        if self._session is not None and not self._pending:
            session, self._session = self._session, None
            await session.close()

    def _open(self) -> ClientSession:
        """Connections belong to the event loop they were made in."""
        import aiohttp

        from shoestring import __version__

        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            headers = {"User-Agent": f"shoestring/{__version__}"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=min(30.0, self._timeout)),
            )
            self._loop = loop
        return self._session

    def _body(self, question: Question, parameters: Parameters) -> bytes:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": role, "content": text} for role, text in question.messages],
            self._length_field: parameters.max_tokens,
            "temperature": parameters.temperature,
            "top_p": parameters.top_p,
        }
        if parameters.stop:
            body["stop"] = list(parameters.stop)
        if parameters.seed is not None:
            body["seed"] = parameters.seed + question.sample
        try:
            return json.dumps(body, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise Refused(f"its text holds half a character ({error.reason}): mend the text") from None

    async def _failure(self, response: Any) -> Exception:
        """What an answer that is an error means: for this attempt, for this question, or for all."""
        status = response.status
        said = words_of(await response.read())
        if self._key:
            said = said.replace(self._key, "(the key)")
        told = f"HTTP {status}" + (f": {said}" if said else "")
        if status in _AGAIN or status >= 500:
            wait = retry_after(response.headers.get("Retry-After")) if status in (429, 503) else None
            return Unanswered(f"{self.url}: {told}", wait=wait, maybe=status in _DOUBTFUL)
        if status == 401:
            mend = (
                "set OPENAI_API_KEY to a key of this server" if not self._key else "is the API key one of this server?"
            )
            return ValueError(f"{self.url} refuses the API key ({told}): {mend}")
        if 300 <= status < 400:
            return ValueError(f"{self.url} moves to {response.headers.get('Location')}: give that URL")
        if status == 402:
            return ValueError(
                f"{self.url} does not offer model {self.model!r} to this account ({told}): is it paid up?"
            )
        if status in (404, 405):
            return ValueError(
                f"{self.url} has no model {self.model!r}, or is no such server ({told}): are URL and name right?"
            )
        return Forbidden(told) if status == 403 else Refused(told)  # by some hosts what their moderation flags


def _reason(error: Exception) -> str:
    """Why there is no connection: the system's words, else the library's."""
    inner = getattr(error, "os_error", error)
    number = inner.errno if isinstance(inner, OSError) else None
    words = os.strerror(number) if number is not None and number > 0 else getattr(inner, "strerror", None)
    return words or "no connection in time"


def _needs_aiohttp() -> None:
    try:
        import aiohttp  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError("a teacher behind an endpoint: pip install 'shoestring[rationale]'") from None


def _base(url: str) -> str:
    base = url.strip().rstrip("/").removesuffix("/chat/completions")
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{url!r} is no server's URL: expected one such as http://127.0.0.1:8000/v1")
    return base


def _proxy(url: str) -> str | None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost" or urllib.request.proxy_bypass(host):
        return None
    try:
        if ipaddress.ip_address(host).is_loopback:
            return None
    except ValueError:  # a name
        pass
    return urllib.request.getproxies().get(parts.scheme)
