"""Reads the counters every few seconds and enters them."""

import asyncio
import logging
import time
from dataclasses import dataclass

from chargeback.counters import Counters, Unanswered
from chargeback.ledger import Ledger

log = logging.getLogger("chargeback")


@dataclass
class Readings:
    """
    Args:
        every: seconds between two readings.
        last: when Prometheus last answered, seconds since 1970; 0 if it never did.
    """

    counters: Counters
    ledger: Ledger
    every: float
    last: float = 0.0

    async def go_on(self) -> None:
        """Until cancelled. A Prometheus that is away is waited for: its counters go on meanwhile."""
        while True:
            try:
                self.ledger.enter(await asyncio.to_thread(self.counters.read))
                self.last = time.time()
            except Unanswered as why:
                log.warning("no reading: %s", why)
            await asyncio.sleep(self.every)
