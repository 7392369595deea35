"""How many callers of each queue were answered and gave up today. The counts survive a restart of the service."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Callable

FILE = "today.json"
KINDS = ("answered", "abandoned")

log = logging.getLogger(__name__)


class Today:
    """Counts of today, by the local time of the host, and since the start. `directory` empty: they are not kept."""

    def __init__(self, directory: str, queues: Iterable[str], today: Callable[[], date] = date.today) -> None:
        """Read what was kept, if it is of today."""
        self.path = Path(directory) / FILE if directory else None
        self.today = today
        self.since_start = {queue: dict.fromkeys(KINDS, 0) for queue in queues}
        self._begin()
        self._read()

    def _begin(self) -> None:
        self.day = self.today()
        self._counts = {queue: dict.fromkeys(KINDS, 0) for queue in self.since_start}
        self.unsaved = False

    def _read(self) -> None:
        if not self.path:
            return
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            if kept["day"] == self.day.isoformat():
                for queue, counts in self._counts.items():
                    counts.update({kind: int(kept["queues"].get(queue, {}).get(kind, 0)) for kind in KINDS})
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s: not read, the counts of today begin at 0: %r", self.path, error)

    def add(self, queue: str, kind: str) -> None:
        """Count a caller of a known queue as `answered` or `abandoned`."""
        self.roll()
        self._counts[queue][kind] += 1
        self.since_start[queue][kind] += 1
        self.unsaved = True

    def counts(self, queue: str) -> tuple[int, int]:
        """Answered and abandoned today."""
        counts = self._counts[queue]
        return counts["answered"], counts["abandoned"]

    def roll(self) -> bool:
        """Begin anew if the day is another one; whether it is."""
        if self.today() == self.day:
            return False
        self._begin()
        self.unsaved = True
        return True

    def save(self) -> None:
        """Keep the counts, so that a crash leaves the old file or the new one. It may take as long as a disk takes."""
        if not self.path or not self.unsaved:
            return
        self.unsaved = False
        new = self.path.with_suffix(".new")
        try:
            with new.open("w", encoding="utf-8") as file:
                json.dump({"day": self.day.isoformat(), "queues": self._counts}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self.path)
        except OSError as error:
            self.unsaved = True
            log.warning("%s: not written: %s", self.path, error.strerror)
