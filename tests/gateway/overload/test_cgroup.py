"""Memory usage of a container, from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.overload.cgroup import ContainerMemory

MIB = 2**20


def group(folder: Path, limit: object, used: int, *, version: int = 2, files: int = 0) -> None:
    """Write the files of a control group; `files` bytes of its usage are pages of files."""
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
    """Return the usage that a process in these groups reads."""
    listed = root.with_name("cgroup")
    listed.write_text("".join(f"{line}\n" for line in membership))
    return ContainerMemory(root, listed).used_share()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The mount point of control groups."""
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
def test_usage_has_a_limit(root: Path, version: int, folder: str, membership: str) -> None:
    """Both versions of control groups are read, with and without a namespace of the container."""
    group(root / folder, 100 * MIB, 80 * MIB, version=version)
    assert used_share(root, "2:cpuset:/", membership) == 0.8


@pytest.mark.parametrize("version", [1, 2])
def test_pages_of_files_do_not_count(root: Path, version: int) -> None:
    """The kernel reclaims them before it kills a process."""
    where = root if version == 2 else root / "memory"
    group(where, 100 * MIB, 90 * MIB, version=version, files=40 * MIB)
    assert used_share(root, "0::/", "4:memory:/") == 0.5


def test_caches_of_the_kernel_do_not_count(root: Path) -> None:
    """The kernel reclaims them as well, and shows them in version 2 only."""
    group(root, 100 * MIB, 90 * MIB)
    with (root / "memory.stat").open("a") as stat:
        stat.write(f"slab_reclaimable {70 * MIB}\nslab_unreclaimable {5 * MIB}\n")
    assert used_share(root, "0::/") == 0.2


def test_a_failed_read_is_an_error(root: Path) -> None:
    """An unreadable file does not mean that there is no limit."""
    group(root, 100 * MIB, 90 * MIB)
    (root / "memory.current").unlink()
    (root / "memory.current").mkdir()
    with pytest.raises(IsADirectoryError):
        used_share(root, "0::/")


def test_a_path_of_the_host_is_found_in_the_namespace(root: Path) -> None:
    """The path may be the host's, while only the container's groups are visible."""
    group(root, 100 * MIB, 70 * MIB)
    assert used_share(root, "0::/kubepods/pod1/container2") == 0.7


def test_the_fullest_group_counts(root: Path) -> None:
    """A group has its own limit, and those of its parents."""
    group(root / "pod/a", 100 * MIB, 10 * MIB)
    group(root / "pod", 200 * MIB, 180 * MIB)
    group(root, 1000 * MIB, 200 * MIB)
    assert used_share(root, "0::/pod/a") == 0.9


@pytest.mark.parametrize("limit", ["max", 2**63 - 4096, 0, "?"])
def test_without_a_limit_usage_is_zero(root: Path, limit: object) -> None:
    """The kernel has several forms for a group without a limit."""
    group(root, limit, 10**12)
    group(root / "memory", limit, 10**12, version=1)
    assert used_share(root, "0::/", "4:memory:/") == 0


def test_without_control_groups_usage_is_zero(root: Path) -> None:
    """The kernel has none, or does not show them."""
    assert used_share(root, "0::/", "4:memory:/") == 0
    assert ContainerMemory(root, root / "nothing").used_share() == 0


def test_the_real_kernel_is_read() -> None:
    """The usage of the test process is less than its limit."""
    assert 0 <= ContainerMemory().used_share() < 1


def test_the_smallest_limit_of_all_groups_counts(root: Path) -> None:
    """A group without one has that of its parent."""
    group(root, "max", 1)
    group(root / "pod", 300 * MIB, 1)
    group(root / "pod/container", "max", 1)
    listed = root.with_name("cgroup")
    listed.write_text("0::/pod/container\n")
    assert ContainerMemory(root, listed).limit_bytes() == 300 * MIB
    listed.write_text("0::/\n")
    assert ContainerMemory(root, listed).limit_bytes() is None
    assert ContainerMemory(root, root / "missing").limit_bytes() is None
