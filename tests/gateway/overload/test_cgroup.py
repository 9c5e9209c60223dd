"""How much memory a container has left, from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.overload.cgroup import ContainerMemory

MIB = 2**20


def group(folder: Path, limit: object, used: int, *, version: int = 2, files: int = 0) -> None:
    """A control group's account of its memory, of which `files` bytes are pages of files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current")
    prefix = ""
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        prefix = "total_"
        (folder / "memory.stat").write_text("active_file 1\n")
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    stat = f"anon 5\n{prefix}inactive_file {files // 2}\n{prefix}active_file {files // 2}\n"
    (folder / "memory.stat").write_text(stat)


def used_share(root: Path, *membership: str) -> float:
    """What a process would read that is in these groups."""
    told = root.with_name("cgroup")
    told.write_text("".join(f"{line}\n" for line in membership))
    return ContainerMemory(root, told).used_share()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where groups are mounted."""
    return tmp_path / "fs"


@pytest.mark.parametrize(
    ("version", "folder", "membership"),
    [
        (2, ".", "0::/"),
        (2, "system.slice/gateway.service", "0::/system.slice/gateway.service"),
        (1, "memory", "4:memory:/"),
        (1, "memory/docker/a", "4:cpu,memory:/docker/a"),
    ],
)
def test_a_limit(root: Path, version: int, folder: str, membership: str) -> None:
    """By either version, in a namespace of its own or not."""
    group(root / folder, 100 * MIB, 80 * MIB, version=version)
    assert used_share(root, "2:cpuset:/", membership) == 0.8


@pytest.mark.parametrize("version", [1, 2])
def test_pages_of_files_are_no_shortage(root: Path, version: int) -> None:
    """The kernel takes them back before it kills anybody."""
    where = root if version == 2 else root / "memory"
    group(where, 100 * MIB, 90 * MIB, version=version, files=40 * MIB)
    assert used_share(root, "0::/", "4:memory:/") == 0.5


def test_caches_of_the_kernel_are_no_shortage(root: Path) -> None:
    """It takes them back as well, and tells of them by version 2 only."""
    group(root, 100 * MIB, 90 * MIB)
    with (root / "memory.stat").open("a") as stat:
        stat.write(f"slab_reclaimable {70 * MIB}\nslab_unreclaimable {5 * MIB}\n")
    assert used_share(root, "0::/") == 0.2


def test_it_cannot_be_said(root: Path) -> None:
    """That a file cannot be read now does not mean that there is no limit."""
    group(root, 100 * MIB, 90 * MIB)
    (root / "memory.current").unlink()
    (root / "memory.current").mkdir()
    with pytest.raises(IsADirectoryError):
        used_share(root, "0::/")


def test_a_namespace_of_its_own(root: Path) -> None:
    """The path may be the host's, while only what is the container's can be seen."""
    group(root, 100 * MIB, 70 * MIB)
    assert used_share(root, "0::/kubepods/pod1/container2") == 0.7


def test_the_scarcest_counts(root: Path) -> None:
    """A group has what it may have, and no more than those around it."""
    group(root / "pod/a", 100 * MIB, 10 * MIB)
    group(root / "pod", 200 * MIB, 180 * MIB)
    group(root, 1000 * MIB, 200 * MIB)
    assert used_share(root, "0::/pod/a") == 0.9


@pytest.mark.parametrize("limit", ["max", 2**63 - 4096, 0, "?"])
def test_no_limit(root: Path, limit: object) -> None:
    """However it is said, nothing is ever scarce."""
    group(root, limit, 10**12)
    group(root / "memory", limit, 10**12, version=1)
    assert used_share(root, "0::/", "4:memory:/") == 0


def test_no_groups(root: Path) -> None:
    """Where the kernel has none, or does not show them."""
    assert used_share(root, "0::/", "4:memory:/") == 0
    assert ContainerMemory(root, root / "nothing").used_share() == 0


def test_the_kernel() -> None:
    """Whatever it says of the process that runs this, it is less than all."""
    assert 0 <= ContainerMemory().used_share() < 1
