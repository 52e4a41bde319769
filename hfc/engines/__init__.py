"""Who runs which shard, and nothing else. An engine knows callables only. To add one: a module here, a line below."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from hfc.engines import local

Engine = Callable[[Sequence[int], Callable[[Iterable[int]], None]], None]

ENGINES: Mapping[str, Engine] = {"local": local.run}
