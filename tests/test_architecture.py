"""Layers of the edge and of the service as lists, and a few rules more."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from services.providers.registry import DIALECTS

ROOT = Path(__file__).parents[1]

LAYERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "gateway": (
        ("gateway.__main__",),
        ("gateway.arguments",),
        ("gateway.edge",),
        ("gateway.server",),
        ("gateway.app", "gateway.operators_app"),
        ("gateway.openapi", "gateway.console"),
        ("gateway.surfaces", "gateway.transcoding"),
        ("gateway.http", "gateway.rpc"),
        ("gateway.overload", "gateway.telemetry"),
        ("gateway.backend", "gateway.config", "gateway.errors"),
    ),
    "services": (
        ("services.__main__",),
        ("services.cli",),
        ("services.serving",),
        ("services.operations",),
        ("services.embeddings", "services.call_log"),
        ("services.completions", "services.models", "services.accounts"),
        ("services.admission", "services.routing"),
        ("services.metering", "services.providers"),
        ("services.overload", "services.rpc"),
        ("services.local",),
        ("services.config", "services.telemetry"),
        ("services.storage",),
        ("services.clock", "services.capabilities"),
        ("services.errors", "services.context_windows", "services.embedding_limits"),
        ("services.reason_table",),
        ("services.common",),
        ("services.domain",),
    ),
}
"""Rows of either side. A row imports lower rows only; packages of one row do not import each other,
and so no two packages import each other."""

BOTH_SIDES = (
    "services.serving.serve",
    "services.serving.core_backend",
    "services.serving.listeners",
    "services.serving.raw_apis",
    "services.cli.arguments",
    "services.cli.serve_arguments",
    "services.cli.serve_commands",
    "services.cli.operation_commands",
)
"""Modules that import both sides. Two run service and edge in one process, one reads requests with
the edge's reader."""

LEAVES = "services.common"
CONTRACT = "services.common.contract"
DOMAIN = "services.domain"
SHARED = (LEAVES, DOMAIN)
"""Packages of services that the edge may import, too. They import nothing else of ours."""

PROVIDERS = "services.providers"
RELATED = {("openrouter", "openai")}
"""OpenRouter speaks OpenAI's dialect and adds to it."""

ONLY_IN: dict[str, tuple[str, ...]] = {
    "aiohttp": (
        "gateway",
        "services.providers",
        "services.local.local_models",
        "services.local.scripted_server",
        "services.serving.serve",
        "services.serving.core_backend",
        "services.serving.listeners",
        "services.common.metrics_page",
    ),
    "anthropic": (),
    "asyncpg": (
        "services.storage.postgres",
        "services.storage.postgres_connector",
        "services.storage.postgres_schema",
    ),
    "openai": (),
    "opentelemetry": ("services.telemetry", "services.serving.listeners", "gateway"),
    "prometheus_client": (
        "gateway",
        "services.common",
        "services.serving.service",
        "services.telemetry",
    ),
    "redis": ("services.storage.redis_client", "services.storage.redis_connector"),
    "requests": (),
    "services.providers.registry": ("services.serving", "services.cli"),
    "services.storage.postgres": ("services.storage",),
    "services.storage.redis": ("services.storage",),
    "services.storage.sqlite": ("services.storage",),
    "sqlite3": ("services.storage",),
    "xllamacpp": ("services.local.model_server",),
}
"""Libraries and concrete modules, and the only packages that may import them."""

GRPC = ("grpc", "grpc_health", "pomogator")
EDGE_OF_GRPC = (
    "gateway.rpc",
    "gateway.transcoding",
    "gateway.openapi",
    "gateway.operators_app",
    "gateway.app",
    "gateway.server",
    "gateway.console",
)
"""Modules of the edge that know gRPC. All others speak the domain (`gateway.backend`)."""

IO_OF_NO_DIALECT = ("aiohttp", "asyncio", "grpc.aio", "httptools", "socket", "ssl")


def is_within(module: str, package: str) -> bool:
    """Whether `module` is `package` or in it."""
    return module == package or module.startswith(f"{package}.")


def violations(module: str, imported: str) -> Iterator[str]:
    """Yield the rules that `module` breaks by importing `imported`."""
    side, other = module.partition(".")[0], imported.partition(".")[0]
    yield from _violations_of_sharing(module, imported)
    here, there = _row(module), _row(imported)
    if side == other and side in LAYERS and not _same_package(module, imported):
        if here is None or there is None:
            yield f"a module of {side} is in no row of LAYERS"
        elif there <= here:
            yield "imports go downwards"
    if side == "gateway" and other in GRPC and not _is_in(module, EDGE_OF_GRPC):
        yield f"at the edge gRPC is known only in {', '.join(EDGE_OF_GRPC)}"
    folder, cousin = _dialect(module), _dialect(imported)
    if folder and cousin and folder != cousin and (folder, cousin) not in RELATED:
        yield "dialects do not import each other"
    if folder and _is_in(imported, IO_OF_NO_DIALECT):
        yield "dialects do no I/O"
    for name, allowed in ONLY_IN.items():
        if is_within(imported, name) and not _is_in(module, allowed):
            yield f"{name} is imported only in {', '.join(allowed) or 'tests'}"


def _is_in(module: str, packages: Iterable[str]) -> bool:
    return any(is_within(module, package) for package in packages)


def _is_shared(module: str) -> bool:
    return _is_in(module, SHARED)


def _violations_of_sharing(module: str, imported: str) -> Iterator[str]:
    side, other = module.partition(".")[0], imported.partition(".")[0]
    crosses = {side, other} == {"gateway", "services"} and not _is_shared(imported)
    if crosses and module not in BOTH_SIDES:
        yield "edge and service import the contract, not each other"
    if _is_shared(module) and other in LAYERS and not _is_allowed_below(module, imported):
        yield "shared packages import nothing else of ours"


def _is_allowed_below(module: str, imported: str) -> bool:
    """Whether a shared module may import it: of the leaves only the contract knows the domain."""
    knows_domain = is_within(module, CONTRACT) or is_within(module, DOMAIN)
    return is_within(imported, LEAVES) or (knows_domain and is_within(imported, DOMAIN))


def _row(module: str) -> int | None:
    for index, row in enumerate(LAYERS.get(module.partition(".")[0], ())):
        if any(is_within(module, package) for package in row):
            return index
    return None


def _same_package(module: str, imported: str) -> bool:
    return any(
        is_within(module, package) and is_within(imported, package)
        for rows in LAYERS.values()
        for row in rows
        for package in row
    )


def _dialect(module: str) -> str | None:
    for folder in DIALECTS:
        if is_within(module, f"{PROVIDERS}.{folder}"):
            return folder
    return None


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the module of `path` with each module that it imports."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = ".".join(parts).removesuffix(".__init__")
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((module, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((module, _imported(node.module, alias.name)) for alias in node.names)


def _imported(package: str, name: str) -> str:
    """Tell a module (`from services import errors`) from a name in one."""
    target = ROOT.joinpath(*package.split("."), name)
    is_module = target.with_suffix(".py").exists() or (target / "__init__.py").exists()
    return f"{package}.{name}" if is_module else package


@pytest.mark.parametrize("package", ["gateway", "services"])
def test_imports_keep_the_rules(package: str) -> None:
    """No module imports one of a higher row, of the other side, or a library of other packages."""
    broken = {
        f"{module} imports {imported}: {rule}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for module, imported in imports(path)
        for rule in violations(module, imported)
    }

    assert not broken, "\n".join(sorted(broken))


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("gateway.app", "services.errors"),
        ("gateway.config", "gateway.http.body"),
        ("gateway.http.exchange", "gateway.rpc.call_metadata"),
        ("gateway.backend", "gateway.rpc.grpc_backend"),
        ("gateway.rpc.call_metadata", "gateway.surfaces.openai_chat.render"),
        ("gateway.surfaces.openai_chat.decode", "gateway.app"),
        ("gateway.surfaces.openai_chat.decode", "gateway.transcoding.bindings"),
        ("gateway.overload.concurrency_limit", "gateway.telemetry.edge_metrics"),
        ("gateway.telemetry.edge_metrics", "gateway.overload.memory_monitor"),
        ("gateway.rpc.service_channel", "gateway.http.body"),
        ("gateway.server", "gateway.__main__"),
        ("gateway.http.probes", "grpc"),
        ("gateway.surfaces.base", "pomogator.chat.v1.chat_completion_service_pb2"),
        ("gateway.app", "gateway.in_no_row"),
        ("services.serving.server", "gateway.app"),
        ("services.providers.upstream", "services.routing.attempts"),
        ("services.config.loading", "services.telemetry.calls"),
        ("services.errors", "services.clock"),
        ("services.common.loop_lag", "services.clock"),
        ("services.common.tls", "services.errors"),
        ("services.common.metrics_page", "gateway.errors"),
        ("services.common.fair_share", "services.config"),
        ("services.common.fair_share", "services.domain.error_reason"),
        ("services.domain.error_reason", "services.errors"),
        ("services.in_no_row", "services.errors"),
        ("services.providers.anthropic.request", "services.providers.openai.request"),
        ("services.providers.openai.request", "services.providers.openrouter.request"),
        ("services.providers.openai.response", "asyncio"),
        ("services.completions.pipeline", "services.storage.sqlite"),
        ("services.metering.ledger", "asyncpg"),
        ("services.routing.catalog", "services.providers.registry"),
        ("services.local.local_models", "xllamacpp"),
    ],
)
def test_a_planted_violation_is_found(module: str, imported: str) -> None:
    """Each rule finds the import that it forbids."""
    assert list(violations(module, imported))


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("services.serving.serve", "gateway.app"),
        ("services.providers.openrouter.request", "services.providers.openai.request"),
        ("services.completions.pipeline", "services.completions.fold"),
        ("services.storage.opening", "services.storage.sqlite"),
        ("gateway.app", "aiohttp.web"),
        ("gateway.app", "gateway.surfaces"),
        ("gateway.surfaces.openai_chat.decode", "gateway.surfaces.json_fields"),
        ("gateway.http.credentials", "services.common.key_format"),
        ("gateway.errors", "services.domain.error_reason"),
        ("services.errors", "services.common.key_format"),
        ("services.common.metrics_page", "services.common.addresses"),
        ("services.common.contract.chat", "pomogator.chat.v1.content_pb2"),
        ("services.common.contract.chat", "services.domain.spec"),
        ("gateway.http.client_connection", "gateway.overload.memory_monitor"),
    ],
)
def test_an_allowed_import_is_allowed(module: str, imported: str) -> None:
    """The rules permit what the design needs."""
    assert not list(violations(module, imported))


def test_proto_has_no_init() -> None:
    """An `__init__.py` in proto/ would shadow the package `proto` of PyPI."""
    assert not list((ROOT / "proto").glob("*/__init__.py"))
    assert not (ROOT / "proto" / "__init__.py").exists()


LISTED = re.compile(r"^    (\w+)(?:  .*)?$", re.MULTILINE)


def packages() -> Iterator[Path]:
    """Every package of the edge and of the service."""
    for side in LAYERS:
        yield from sorted(file.parent for file in (ROOT / side).rglob("__init__.py"))


@pytest.mark.parametrize("package", list(packages()), ids=lambda path: str(path.relative_to(ROOT)))
def test_each_package_lists_its_modules(package: Path) -> None:
    """Its docstring lists each module and subpackage once, in the order in which data flows."""
    text = (package / "__init__.py").read_text("utf-8")
    listed = LISTED.findall(ast.get_docstring(ast.parse(text)) or "")
    modules = {file.stem for file in package.glob("*.py")} - {"__init__"}
    subpackages = {file.parent.name for file in package.glob("*/__init__.py")}

    assert sorted(listed) == sorted(modules | subpackages)


def test_each_folder_of_modules_is_a_package() -> None:
    """No folder with modules lacks an `__init__.py`, and so none escapes the test above."""
    folders = {file.parent for side in LAYERS for file in (ROOT / side).rglob("*.py")}

    assert folders == set(packages())


def test_each_fault_of_a_text_that_is_no_json_is_caught() -> None:
    """Readers catch all of `NOT_JSON`, not only msgspec's own error, which one module names."""
    naming = [
        str(file.relative_to(ROOT))
        for side in LAYERS
        for file in (ROOT / side).rglob("*.py")
        if "msgspec.DecodeError" in file.read_text("utf-8")
    ]

    assert naming == ["services/common/json_errors.py"]
