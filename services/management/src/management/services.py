"""The parts of the running service, made once and handed to whoever answers a request."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from management.audit import Audit
from management.console import Console
from management.identity import Administrators, Tokens
from management.kube import Kube
from management.limits import LoginAttempts, UserLimits
from management.models import Models
from management.outbound import Outbound
from management.publisher import Publisher
from management.register import Register
from management.settings import Settings
from management.tokens import GatewayCounters

HISTORY = 50
USERS_WITH_HISTORY = 1000


@dataclass
class Services:
    settings: Settings
    kube: Kube
    register: Register
    publisher: Publisher
    models: Models
    tokens: Tokens
    administrators: Administrators
    outbound: Outbound
    console: Console
    audit: Audit
    users: UserLimits
    logins: LoginAttempts
    counters: GatewayCounters
    tested: dict[str, deque[dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> "Services":
        kube = Kube(settings.kube_url, settings.kube_token, settings.kube_ca)
        register = Register(kube, settings)
        return cls(
            settings=settings,
            kube=kube,
            register=register,
            publisher=Publisher(kube, register, settings),
            models=Models(kube, settings),
            tokens=Tokens(settings, kube),
            administrators=Administrators(settings, kube),
            outbound=Outbound(settings),
            console=Console(kube),
            audit=Audit(),
            users=UserLimits(settings.calls_per_minute, settings.calls_per_second),
            logins=LoginAttempts(),
            counters=GatewayCounters(settings.prometheus_url, register.learn_tokens),
        )

    def remember_test(self, user: str, entry: dict[str, Any]) -> None:
        """The last test calls of each user, until the service stops."""
        if user not in self.tested and len(self.tested) >= USERS_WITH_HISTORY:
            self.tested.pop(next(iter(self.tested)))
        self.tested.setdefault(user, deque(maxlen=HISTORY)).appendleft(entry)

    async def close(self) -> None:
        await self.counters.close()
        await self.outbound.close()
        await self.models.close()
        await self.kube.close()
