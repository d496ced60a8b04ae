"""What this machine lets a program use."""

from pathlib import Path

import pytest
import torch

from model.device import usable_cores

PYTORCHS_THREADS = torch.get_num_threads()  # before `one_thread`


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000\n", 1),
        ("50000 100000\n", 1),
        ("3200000 100000\n", 8),
    ],
)
def test_threads_that_wait_for_each_other_stay_within_a_containers_quota(
    quota: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_cores(tmp_path / "cpu.max") == cores


def test_without_control_groups_all_cores_are_used(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "cpu.max") == PYTORCHS_THREADS
