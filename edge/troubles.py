"""Tags that a device refuses to give or to take: those with one reason are told together, once, and when it is over."""

from collections.abc import Callable, Mapping, Sequence

from drivers.value import GOOD


class Troubles:
    """What was told of a device's tags in one direction, by their places among its tags.

    `tell` gets (places, StatusCode, reason) of each group, and with GOOD and "" when it is one no longer; `say` gets
    (places, reason) for people: of each new group, and with "" of those that have no trouble any more.
    """

    def __init__(
        self, tell: Callable[[Sequence[int], int, str], None], say: Callable[[Sequence[int], str], None]
    ) -> None:
        self._tell = tell
        self._say = say
        self._found: dict[int, tuple[int, str]] = {}
        self._groups: dict[tuple[int, str], list[int]] = {}

    def take(self, found: Mapping[int, tuple[int, str]]) -> None:
        """{place: (StatusCode, reason)} of all that are in trouble now."""
        if found == self._found:
            return
        groups: dict[tuple[int, str], list[int]] = {}
        for place, reason in sorted(found.items()):
            groups.setdefault(reason, []).append(place)
        over = sorted(self._found.keys() - found.keys())
        if over:
            self._say(over, "")
        for reason, places in self._groups.items():
            if groups.get(reason) != places:
                self._tell(places, GOOD, "")
        for (status, text), places in groups.items():
            if self._groups.get((status, text)) != places:
                self._say(places, text)
                self._tell(places, status, text)
        self._found, self._groups = dict(found), groups

    def again(self) -> None:
        """Tells all that is so, to a loop that was not there."""
        for (status, text), places in self._groups.items():
            self._tell(places, status, text)
