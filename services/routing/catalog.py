"""Catalog of public models, and of the targets that serve each: a channel with one of its keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from services.capabilities import lookup
from services.common.chat_names import THINKING_SUFFIX
from services.config import ChannelConfig, Config, ModelConfig
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.providers.base import ModelRoute, PlainEncoder, Target
from services.routing.dialect_choice import with_dialects

ECHO_MAX = 64
"""Number of characters of an unknown model's name that a failure repeats."""

PlainEncoders = Mapping[str, Callable[[Target], PlainEncoder | None]]
"""The encoders of plain requests to one target, by the dialects that have one."""


class Catalog:
    """All models of one configuration. A reload makes a new catalog."""

    def __init__(self, config: Config, plain_encoders: PlainEncoders | None = None) -> None:
        routes = _routes(config)
        if plain_encoders:
            routes = {name: _encoding(route, plain_encoders) for name, route in routes.items()}
        self._routes = routes

    def resolve(self, model: str) -> ModelRoute:
        """Return the route of a public name. Raises Failure MODEL_NOT_FOUND."""
        route = self._routes.get(model)
        if route is None:
            raise Failure(
                ErrorReason.MODEL_NOT_FOUND,
                "Invalid model specified",
                param="model",
                facts={"model": _printable(model)},
            )
        return route

    def resolve_all(self, model: str) -> Sequence[ModelRoute]:
        """Return the route of a public name, and those of its fallbacks. Raises as `resolve`."""
        route = self.resolve(model)
        return [route, *self.fallbacks(route)]

    def fallbacks(self, route: ModelRoute) -> Sequence[ModelRoute]:
        """Return the routes that may answer in place of `route`, in this order.

        Where the name asked for reasoning, a fallback that reasons by its name goes first.
        """
        suffix = route.model.removeprefix(route.base_model)
        found = (self.find(name + suffix) or self.find(name) for name in route.fallbacks)
        return [fallback for fallback in found if fallback is not None]

    def find(self, model: str) -> ModelRoute | None:
        """Return the route of a public name; None for an unknown name."""
        return self._routes.get(model)

    @property
    def targets_by_channel(self) -> Mapping[tuple[str, str], Sequence[Target]]:
        """The targets, one per key, by channel and public model, without derived names."""
        targets: dict[tuple[str, str], list[Target]] = {}
        for route in self.routes:
            if route.model == route.base_model:
                for target in route.targets:
                    targets.setdefault((target.channel.name, route.model), []).append(target)
        return targets

    @property
    def base_models(self) -> Sequence[str]:
        """The names by which prices are looked up, without derived names."""
        return sorted({route.base_model for route in self._routes.values()})

    @property
    def routes(self) -> Sequence[ModelRoute]:
        """All routes, by name."""
        return [self._routes[name] for name in sorted(self._routes)]


def _routes(config: Config) -> Mapping[str, ModelRoute]:
    rows = {row.name: row for row in config.models}
    routes = {
        name: _route(name, name, config, rows, thinking=name.endswith(THINKING_SUFFIX))
        for name in _public_names(config)
    }
    for name, route in list(routes.items()):
        derived = name + THINKING_SUFFIX
        able = any(target.capabilities.named_thinking for target in route.targets)
        if able and derived not in routes and not name.endswith(THINKING_SUFFIX):
            routes[derived] = _route(derived, name, config, rows, thinking=True)
    return routes


def _public_names(config: Config) -> Sequence[str]:
    return list(dict.fromkeys(name for channel in config.channels for name in channel.models))


def _route(
    name: str, base: str, config: Config, rows: Mapping[str, ModelConfig], *, thinking: bool
) -> ModelRoute:
    row = rows.get(name) or rows.get(base)
    targets = [
        _target(channel, number, base, row, thinking=thinking)
        for channel in config.channels
        if base in channel.models
        for number in range(1 + len(channel.spare_keys))
    ]
    if thinking and name != base:
        targets = [target for target in targets if target.capabilities.named_thinking]
    return ModelRoute(
        model=name, base_model=base, targets=targets, fallbacks=row.fallbacks if row else ()
    )


def _target(
    channel: ChannelConfig,
    key_number: int,
    public_model: str,
    row: ModelConfig | None,
    *,
    thinking: bool,
) -> Target:
    upstream_model = channel.models[public_model]
    target = Target(
        channel=channel,
        model=upstream_model,
        public_model=public_model,
        capabilities=lookup(upstream_model, row, dialect=channel.dialect),
        thinking_by_name=thinking,
        key_number=key_number,
    )
    return with_dialects(target, row)


def _encoding(route: ModelRoute, plain_encoders: PlainEncoders) -> ModelRoute:
    """Return a route whose targets have their encoders of plain requests."""
    targets = [
        replace(target, plain=plain_encoders[target.channel.dialect](target))
        if target.channel.dialect in plain_encoders
        else target
        for target in route.targets
    ]
    return replace(route, targets=targets)


def _printable(model: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in model[:ECHO_MAX])
