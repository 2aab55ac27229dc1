"""Which shards a recipe means: a pattern, a folder or addresses, and nothing that runs a program.

WebDataset's own opener takes ``pipe:`` (a shell command), ``file:``, ``gs:`` and more, and fills in
``${VARIABLES}``; a recipe from somebody else must not be able to do that. Brace expansion is its.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import islice
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from webdataset.shardlists import braceexpand

from robustzs.errors import DatasetNotFoundError, ShardError

MAX_SHARDS = 100_000
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # two letters or more: C: is a drive
_CHOICE = re.compile(r"\{(?:(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?|[^{},]*((?:,[^{},]*)+))\}")


@dataclass(frozen=True, kw_only=True)
class ShardName:
    """One shard.

    Attributes:
        where: A path, or an ``https`` address.
        name: For people, reports and digests; the same on every machine.
    """

    where: str
    name: str

    @property
    def is_remote(self) -> bool:
        """Whether it must be fetched before it can be read."""
        return "://" in self.where


def find_shards(path: str, *, split: str = "train") -> tuple[ShardName, ...]:
    """Find the shards that ``path`` means.

    Args:
        path: ``DIR/train-{000000..000146}.tar``, ``https://host/train-{00..99}.tar``, one ``.tar``,
            or a folder of them.
        split: The folder within a folder that holds the shards, where they do not lie in itself.

    Returns:
        In the order of the pattern; a folder's sorted by name.

    Raises:
        DatasetNotFoundError: There is no such folder or shard.
        ShardError: A pattern that is not one, too many shards, the same one twice, or an address
            that is refused.
    """
    if "\0" in path or not path.strip():
        raise ShardError(f"{path!r} names no shards", hint="give DIR/train-{0000..0009}.tar")
    if _SCHEME.match(path) is None:
        path = os.path.expanduser(path)
    if os.path.isdir(path):
        places = _in_folder(Path(path), split)
    elif os.path.exists(path):
        places = [path]
    else:
        places = _expand(path)
    twice = [place for place, count in Counter(places).items() if count > 1]
    if twice:
        raise ShardError(f"the shard {shown(twice[0])!r} is named twice by {shown(path)!r}")
    for place in places:
        check_address(place)
    _check_all_there(places, path)
    return tuple(
        ShardName(where=place, name=name)
        for place, name in zip(places, _short_names(places), strict=True)
    )


def check_address(place: str) -> None:
    """Refuse every address but ``https`` (and ``http`` on this machine itself).

    Raises:
        ShardError: Another scheme, no host, or a password in it.
    """
    scheme = _SCHEME.match(place)
    if scheme is None:
        return
    hint = "give a local path or an https address; fetch other places with their own tools first"
    try:
        parts = urlsplit(place)
        host = parts.hostname
    except ValueError as error:
        raise ShardError(f"{shown(place)!r} is not an address: {error}", hint=hint) from error
    kind = scheme[1].lower()
    if kind == "http" and host and not _is_loopback(host):
        raise ShardError(
            f"{shown(place)!r} would come without encryption, so anybody on the way may change it",
            hint="use https",
        )
    if kind not in ("http", "https"):
        raise ShardError(f"shards are not read from {kind}: ({shown(place)!r})", hint=hint)
    if not host:
        raise ShardError(f"{shown(place)!r} names no host", hint=hint)
    if parts.username is not None or parts.password is not None:
        raise ShardError(
            f"the address of {host} contains a user name or password",
            hint="these end up in logs: use an address that needs none, or fetch the shards first",
        )


def shown(place: str) -> str:
    """The address as messages give it: without its query, which may be a signature or key."""
    if "://" not in place:
        return place
    head = re.split(r"[?#]", place, maxsplit=1)[0]
    return re.sub(r"//[^/@]*@", "//", head, count=1)


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _in_folder(folder: Path, split: str) -> list[str]:
    for candidate in (folder, folder / split):
        if candidate.is_dir():
            found = sorted(str(each) for each in candidate.iterdir() if each.suffix == ".tar")
            if found:
                return found
    raise DatasetNotFoundError(
        f"there is no .tar file in {str(folder)!r} or its folder {split!r}",
        hint="give the folder that holds the shards, or DIR/train-{0000..0009}.tar",
    )


def _expand(pattern: str) -> list[str]:
    n_expected = 1
    for match in _CHOICE.finditer(pattern):
        # Before expanding, which takes a while for many, and holds every range in memory.
        if match[4] is not None:
            n_expected *= match[4].count(",") + 1
            continue
        try:
            first, last = int(match[1]), int(match[2])
            step = int(match[3] or 1) or 1
        except ValueError as error:  # more digits than Python reads
            raise ShardError("the pattern of the shards holds a number beyond reason") from error
        n_expected *= abs(last - first) // step + 1
    if n_expected <= MAX_SHARDS:
        try:
            places = list(islice(braceexpand.braceexpand(pattern), MAX_SHARDS + 1))
        except ValueError as error:
            raise ShardError(
                f"{shown(pattern)!r} is not a pattern of shards: {error}",
                hint="write a range as {0000..0009}",
            ) from error
        if len(places) <= MAX_SHARDS:
            return places
    raise ShardError(
        f"{shown(pattern)!r} names more than {MAX_SHARDS} shards", hint="make fewer, larger shards"
    )


def _check_all_there(places: list[str], path: str) -> None:
    missing = [place for place in places if "://" not in place and not os.path.exists(place)]
    if missing:
        more = f" and {len(missing) - 1} more of {len(places)}" if len(missing) > 1 else ""
        raise DatasetNotFoundError(
            f"there is no shard {missing[0]!r}{more}, which {path!r} asks for",
            hint="check the path, and the first and last number of the range",
        )
    for place in places:
        if "://" not in place and not os.path.isfile(place):
            raise ShardError(f"{place!r} is not a regular file", hint="give .tar files")


def _short_names(places: list[str]) -> list[str]:
    """What remains of each place without the folders that all of them share."""
    pieces = [_address_path(place).replace("\\", "/").split("/") for place in places]
    shared = 0
    shortest = min(len(each) for each in pieces) - 1
    while shared < shortest and len({each[shared] for each in pieces}) == 1:
        shared += 1
    names = ["/".join(each[shared:]) for each in pieces]
    if len(set(names)) == len(names):
        return names
    return [shown(place) for place in places]  # the same path on two hosts


def _address_path(place: str) -> str:
    if "://" not in place:
        return os.path.abspath(place)
    parts: SplitResult = urlsplit(place)
    return parts.path
