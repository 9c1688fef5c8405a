"""The requests of a shared cache as scripts that run in Redis or Valkey, in one round trip each.

https://redis.io/docs/latest/develop/programmability/eval-intro/
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .shared_cache import Announcement, CacheEntry

_BACKEND: Final = "django.core.cache.backends.redis"
_ATTRIBUTE: Final = "_beanstalk_dispatch_scripts"


class _Script:
    """A script, and the name by which the server knows it once it has run."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


_TAKE: Final = _Script("""\
local free, reads, unless = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local taken = 0
for i = 1, free do
  if redis.call('SET', KEYS[i], ARGV[4], 'EX', ARGV[5], 'NX') then taken = i break end
end
local answer, is_clear = {taken}, taken > 0
for i = 1, reads do
  local found = redis.call('GET', KEYS[free + i])
  answer[i + 1] = found
  if found and i <= unless then is_clear = false end
end
if taken == 0 then
  for i = 1, free do answer[reads + i + 1] = redis.call('GET', KEYS[i]) end
end
if is_clear and ARGV[6] then
  redis.call('SET', KEYS[free + reads + 1], ARGV[6], 'EX', ARGV[7])
end
return answer
""")
_WRITE: Final = _Script("""\
local count = tonumber(ARGV[1])
for i = 1, count do redis.call('SET', KEYS[i], ARGV[2 * i], 'EX', ARGV[2 * i + 1]) end
local freed = KEYS[count + 1]
if freed and redis.call('GET', freed) == ARGV[2 * count + 2] then redis.call('DEL', freed) end
""")


def scripts_of(cache: Any) -> RedisScripts | None:
    """Return the scripts for a cache, made once; None for one that is not Django's for Redis.

    A client of a project's own may send each key to another server.
    """
    backend = sys.modules.get(_BACKEND)
    if backend is None or getattr(cache, "_class", None) is not backend.RedisCacheClient:
        return None
    scripts: RedisScripts | None = vars(cache).get(_ATTRIBUTE)
    if scripts is None:
        scripts = vars(cache)[_ATTRIBUTE] = RedisScripts(cache)
    return scripts


class RedisScripts:
    """The requests of a shared cache, for Django's cache in Redis."""

    def __init__(self, cache: Any) -> None:
        self._key = cache.make_and_validate_key
        self._seconds = cache.get_backend_timeout
        client = cache._cache  # noqa: SLF001 - Django has no public way to its client
        # Django makes one for each request, which takes as long as the request itself.
        self._redis = client.get_client(None, write=True)
        self._no_script = client._lib.exceptions.NoScriptError  # noqa: SLF001
        self._dumps, self._loads = client._serializer.dumps, client._serializer.loads  # noqa: SLF001

    def take(
        self,
        keys: Sequence[str],
        value: object,
        seconds: float,
        reads: Sequence[str],
        announcement: Announcement | None,
    ) -> tuple[str, dict[str, Any]]:
        """Do as ``SharedCache.take``."""
        wanted, unless, announced = [*keys, *reads], 0, []
        if announcement is not None:
            entry, bars = announcement
            reads = [*bars, *(each for each in reads if each not in bars)]
            wanted, unless = [*keys, *reads, entry.key], len(bars)
            announced = [self._dumps(entry.value), self._seconds(entry.seconds)]
        taken, *values = self._run(
            _TAKE, wanted,
            len(keys), len(reads), unless, self._dumps(value), self._seconds(seconds), *announced,
        )  # fmt: skip
        names = reads if taken else [*reads, *keys]
        found = zip(names, values, strict=True)
        known = {name: self._loads(each) for name, each in found if each is not None}
        return (keys[taken - 1] if taken else ""), known

    def write(self, entries: Sequence[CacheEntry], freed: tuple[str, object] | None) -> None:
        """Do as ``SharedCache.write``."""
        keys, arguments = [each.key for each in entries], [len(entries)]
        for each in entries:
            arguments += [self._dumps(each.value), self._seconds(each.seconds)]
        if freed:
            keys.append(freed[0])
            arguments.append(self._dumps(freed[1]))
        self._run(_WRITE, keys, *arguments)

    def _run(self, script: _Script, keys: Sequence[str], *arguments: Any) -> Any:
        named = [*map(self._key, keys), *arguments]
        try:
            return self._redis.evalsha(script.sha, len(keys), *named)
        except self._no_script:  # it was restarted
            return self._redis.eval(script.source, len(keys), *named)
