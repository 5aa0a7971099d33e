"""One client for every server that speaks OpenAI's HTTP interface: models and judges post through it.

Bodies go out as they are and replies come back as parsed JSON; a request that could not be answered comes back as a
`Fault`, a value, so that one bad reply never ends a run.
"""

import asyncio
import base64
import copy
import email.utils
import ipaddress
import json
import os
import random
import ssl
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import parse_qsl, urlsplit

import httpx2
import openai

T = TypeVar("T")
R = TypeVar("R")

KEY_VARIABLE = "OPENAI_API_KEY"
REASON_CHARS = 300
"""How much of a server's own words a reason quotes."""


class BadReplyError(Exception):
    """A reply that cannot be used; raised by readers, so that the request is sent again."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Why a request has no answer."""

    reason: str
    """In words; never contains the key."""
    kind: Literal["transport", "bad_reply", "rejected"]
    """transport: no reply came, or only 5xx and 429. bad_reply: none could be used. rejected: another status."""
    code: str = ""
    """The server's own error code, e.g. "moderation_blocked"; "" if it gave none."""


@dataclass(frozen=True, kw_only=True)
class HttpSettings:
    """How hard a server is asked, and for how long."""

    concurrency: int = 16
    """Requests in flight at once."""
    timeout_s: float = 120.0
    """Longest wait for one whole reply."""
    retry_budget_s: float = 300.0
    """No retry starts later than this after a request was first sent."""
    first_wait_s: float = 0.5
    """Longest pause before the first retry; it doubles with every further one, and each is shortened by up to half
    at random."""
    longest_wait_s: float = 30.0
    """Where the doubling ends. A Retry-After may ask for more."""
    bad_reply_tries: int = 3
    """Times a request is sent while its replies cannot be used. A server that repeats itself gains nothing by more."""

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.bad_reply_tries < 1:
            raise ValueError(f"concurrency and bad_reply_tries must be at least 1; got {self}")
        if not (self.timeout_s > 0 and self.retry_budget_s >= 0 and 0 <= self.first_wait_s <= self.longest_wait_s):
            raise ValueError(f"timeout_s must be positive, waits ordered and not negative; got {self}")


@dataclass(frozen=True, kw_only=True)
class Post:
    """One request: JSON, or multipart if it has files."""

    path: str
    """Below the base URL, e.g. "/chat/completions"."""
    body: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[tuple[str, bytes]] = ()
    """(field, PNG bytes), in order."""
    method: Literal["POST", "GET"] = "POST"
    on_reply: Callable[[Any], None] | None = None
    """Told the parsed JSON of every 2xx reply, also of those that cannot be used: they may have cost something."""


class RemoteClient:
    """Posts batches to one server. The key is read from the environment and sent to `base_url` alone.

    Args:
        base_url: Up to and including the version, e.g. "http://127.0.0.1:8000/v1".
        key_variable: Name of the environment variable that holds the key. A server on loopback needs none.

    Raises:
        ValueError: Not an http(s) URL, one with credentials or a query inside, or the key is missing.
    """

    def __init__(
        self, base_url: str, *, settings: HttpSettings | None = None, key_variable: str = KEY_VARIABLE
    ) -> None:
        parts = urlsplit(base_url)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.query
            or parts.fragment
            or "@" in parts.netloc
        ):
            raise ValueError(
                f"a server's URL looks like http://127.0.0.1:8000/v1, without credentials or a query; "
                f"got one of {len(base_url)} characters with host {parts.hostname!r}"
            )
        self.base_url = base_url
        self.settings = settings or HttpSettings()
        self._key = os.environ.get(key_variable, "").strip()
        if not self._key and not _is_loopback(parts.hostname):
            raise ValueError(
                f"{parts.hostname} needs a key in the environment variable {key_variable}; "
                "set it to any word if the server takes none"
            )
        self._tls = ssl.create_default_context()
        self._gone = False
        """A request has spent its budget in vain and nothing was answered since: others are sent once, so that a
        server that is gone for good costs one budget and not one for each request."""
        self._last_reply_s = float("-inf")

    def __repr__(self) -> str:
        return f"RemoteClient({self.base_url!r})"

    def with_settings(self, settings: HttpSettings) -> "RemoteClient":
        """The same server and key, asked in another way."""
        other = copy.copy(self)
        other.settings = settings
        return other

    def chat_many(self, bodies: Sequence[Mapping[str, Any]], read: Callable[[Any], T]) -> "list[T | Fault]":
        """Post every body to /chat/completions; see `post_many`."""
        return self.post_many([Post(path="/chat/completions", body=body) for body in bodies], read)

    def post_many(self, posts: Sequence[Post], read: Callable[[Any], T]) -> "list[T | Fault]":
        """Send requests, at most `settings.concurrency` at once.

        5xx, 408, 425, 429, timeouts and broken connections are tried again until the budget is spent, other statuses
        are not. Redirects are not followed: they would take the key elsewhere.

        Args:
            read: Makes a result of a reply's parsed JSON; raises `BadReplyError` if it cannot.

        Returns:
            One result or fault per request, in order.
        """
        return self.converse([_ask_once(post) for post in posts], read)

    def converse(self, talks: "Sequence[Generator[Post, T | Fault, R]]", read: Callable[[Any], T]) -> list[R]:
        """Hold conversations, at most `settings.concurrency` at once; one that has begun goes on until it ends.

        Args:
            talks: Each yields a request, is sent its result or fault, yields the next if there is one, and returns what
                came of it. Requests are made when they are due and in threads, so that few of them are in memory and
                the encoding of pictures holds up nobody's reply.
            read: As in `post_many`.

        Returns:
            What each came to, in order.
        """
        return asyncio.run(self._converse(talks, read)) if talks else []

    async def _converse(self, talks: "Sequence[Generator[Post, T | Fault, R]]", read: Callable[[Any], T]) -> list[R]:
        slots = asyncio.Semaphore(self.settings.concurrency)
        limits = httpx2.Limits(max_connections=self.settings.concurrency)
        async with (
            httpx2.AsyncClient(follow_redirects=False, verify=self._tls, limits=limits) as http,
            openai.AsyncOpenAI(
                base_url=self.base_url,
                # The SDK demands some key; servers on loopback that take none ignore it.
                api_key=self._key or "none",
                max_retries=0,
                timeout=self.settings.timeout_s,
                http_client=http,
            ) as client,
        ):

            async def one(talk: "Generator[Post, T | Fault, R]") -> R:
                async with slots:
                    step: Post | _End[R] = await asyncio.to_thread(_go_on, talk, None)
                    while isinstance(step, Post):
                        reply = await self._persist(client, step, read)
                        step = await asyncio.to_thread(_go_on, talk, reply)
                    return step.result

            return list(await asyncio.gather(*map(one, talks)))

    async def _persist(self, client: openai.AsyncOpenAI, post: Post, read: Callable[[Any], T]) -> "T | Fault":
        """Send one request until it is answered, rejected or out of budget."""
        start_s, wait_s, num_bad = time.monotonic(), self.settings.first_wait_s, 0
        while True:
            asked_wait_s = 0.0
            try:
                async with asyncio.timeout(self.settings.timeout_s):
                    reply = await self._send(client, post)
                if post.on_reply is not None:
                    post.on_reply(reply)
                result = read(reply)
            except openai.APIStatusError as error:
                fault = self._status_fault(error)
                if fault.kind == "rejected":
                    self._heard()
                    return fault
                asked_wait_s = _retry_after_s(error.response.headers.get("retry-after"))
            except BadReplyError as error:
                self._heard()
                num_bad += 1
                fault = Fault(reason=self._clean(str(error)), kind="bad_reply")
            except (openai.APIConnectionError, httpx2.HTTPError, TimeoutError) as error:
                fault = Fault(reason=self._clean(self._describe(error)), kind="transport")
            else:
                self._heard()
                return result
            pause_s = max(asked_wait_s, wait_s * random.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, self.settings.longest_wait_s)
            spent = time.monotonic() + pause_s - start_s > self.settings.retry_budget_s
            if fault.kind == "transport" and spent and self._last_reply_s < start_s:
                self._gone = True
            if spent or num_bad >= self.settings.bad_reply_tries or self._gone:
                return fault
            await asyncio.sleep(pause_s)

    async def _send(self, client: openai.AsyncOpenAI, post: Post) -> Any:
        """The parsed JSON of a 2xx reply."""
        headers: dict[str, str] = {}
        files = None
        if post.files:
            headers["Content-Type"] = "multipart/form-data"
            files = [(name, (f"{number}.png", data, "image/png")) for number, (name, data) in enumerate(post.files)]
        if post.path.endswith(":generateContent") and self._key:
            headers["x-goog-api-key"] = self._key
        if post.method == "GET":
            response = await client.get(post.path, cast_to=httpx2.Response, options={"headers": headers})
        else:
            response = await client.post(
                post.path, cast_to=httpx2.Response, body=post.body, files=files, options={"headers": headers}
            )
        # A server that echoes the key in a reply must not get it into a record.
        text = self._without_key(response.content.decode("utf-8", "replace"))
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise BadReplyError(f"the reply is not JSON: {cut_middle(text, 160)!r}") from None

    def _heard(self) -> None:
        self._gone = False
        self._last_reply_s = time.monotonic()

    def _status_fault(self, error: openai.APIStatusError) -> Fault:
        status, body = error.status_code, error.body
        code = body.get("code") or body.get("status") or "" if isinstance(body, Mapping) else ""
        again = status in (408, 425, 429) or status >= 500
        words = body.get("message") if isinstance(body, Mapping) else None
        return Fault(
            reason=self._clean(f"HTTP {status}: {words or error.response.text}"),
            kind="transport" if again else "rejected",
            code=self._clean(str(code)),
        )

    def _describe(self, error: Exception) -> str:
        if isinstance(error, (openai.APITimeoutError, TimeoutError)):
            return f"no whole reply within {self.settings.timeout_s:g} s"
        cause = error.__cause__ or error
        return f"connection failed: {type(cause).__name__}: {cause}"

    def _without_key(self, text: str) -> str:
        # A placeholder such as "none" or "x" is no secret, and a word that replies may well contain.
        return text.replace(self._key, "[key]") if len(self._key) >= 8 else text

    def _clean(self, text: str) -> str:
        """One line, without the key, cut only after the key is out so that no part of it stays."""
        return cut_middle(" ".join(self._without_key(text).split()))


@dataclass(frozen=True)
class _End(Generic[R]):
    """A conversation is over: a StopIteration cannot leave a thread."""

    result: R


def _go_on(talk: Generator[Post, Any, R], reply: Any) -> Post | _End[R]:
    try:
        return talk.send(reply)
    except StopIteration as end:
        return _End(end.value)


def _ask_once(post: Post) -> Generator[Post, T | Fault, T | Fault]:
    return (yield post)


def cut_middle(text: str, limit: int = REASON_CHARS) -> str:
    """A text of at most `limit` characters: of a longer one its beginning and its end, where errors say most."""
    if len(text) <= limit:
        return text
    mark = " [...] "
    tail = (limit - len(mark)) // 2
    return text[: limit - len(mark) - tail] + mark + text[-tail:]


HTTP_SETTINGS = ("concurrency", "timeout", "budget")
"""What every address may set, behind its question mark."""


def read_address(address: str, what: str) -> tuple[str, str, dict[str, str]]:
    """A model's name, its server's URL and the settings of "MODEL@URL?name=value&...".

    Args:
        what: Whose address, with its article and an example, for the message.

    Raises:
        ValueError: Not an address.
    """
    where, _, query = address.partition("?")
    model, at, url = where.rpartition("@")
    if not (model and at and url):
        raise ValueError(f"{what}; got {where!r}")
    return model, url, dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))


def take_http_settings(given: dict[str, str], known: Sequence[str]) -> HttpSettings:
    """The settings that every address may have, taken out of `given`.

    Args:
        known: What else may be there.

    Raises:
        ValueError: A setting is unknown, or has no such value.
    """
    if unknown := sorted(set(given) - {*known, *HTTP_SETTINGS}):
        raise ValueError(f"unknown settings: {', '.join(unknown)}; known: {', '.join((*known, *HTTP_SETTINGS))}")
    return HttpSettings(
        concurrency=int(given.pop("concurrency", HttpSettings.concurrency)),
        timeout_s=float(given.pop("timeout", HttpSettings.timeout_s)),
        retry_budget_s=float(given.pop("budget", HttpSettings.retry_budget_s)),
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _retry_after_s(header: str | None) -> float:
    """Seconds that a Retry-After header asks for, as seconds or as a date; 0 if it says nothing readable."""
    if not header:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0


def data_uri(png: bytes) -> str:
    """A PNG file as the URI that chat requests carry pictures in."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
