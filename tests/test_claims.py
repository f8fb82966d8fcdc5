"""How much memory there is for what files claim."""

from pathlib import Path

import pytest

from morph import claims


def test_memory_is_that_of_the_machine_and_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    free = claims.available_memory()
    assert 0 < free <= 2**50
    monkeypatch.setattr(claims.resource, "getrlimit", lambda _: (12345, -1))
    assert claims.available_memory() == 12345


@pytest.mark.parametrize(
    ("limit", "used", "prefix"),
    [("memory.max", "memory.current", ""),
     ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_")],
)  # fmt: skip
def test_pages_of_files_are_free_memory_of_a_container(
    limit: str, used: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_CGROUP", tmp_path)
    monkeypatch.setattr(claims.resource, "getrlimit", lambda _: (claims.resource.RLIM_INFINITY, -1))
    of_machine = claims.available_memory()
    counts = {"anon": 3, "file": 900, "inactive_file": 500, "active_file": 300, "active_file_more": 50}
    other = {"": "total_", "total_": ""}[prefix]

    def free(**files: str) -> int:
        for name in (limit, used):
            (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / limit).write_text(files.get("limit", "1000\n"))
        (tmp_path / used).write_text(files.get("used", "990\n"))
        (tmp_path / limit).with_name("memory.stat").write_text(files["stat"])
        return claims.available_memory()

    stat = "".join(f"{prefix}{name} {count}\n" for name, count in counts.items())
    assert free(stat=stat) == 1000 - (990 - 500 - 300)
    assert free(stat="".join(f"{other}{name} {count}\n" for name, count in counts.items())) == 10
    assert free(stat="damaged") == 10
    assert free(stat=stat, used="700") == 1000  # counted at another moment
    assert free(stat="", used="1200") == 0
    assert free(stat=stat, limit="max") > 1000
    (tmp_path / limit).with_name("memory.stat").unlink()
    (tmp_path / limit).write_text("1000")
    assert claims.available_memory() == 10
    (tmp_path / limit).unlink()
    assert claims.available_memory() > min(of_machine, 2**20)
