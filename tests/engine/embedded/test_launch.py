"""vLLM's command line and environment."""

from pathlib import Path

import pytest

from kinetics_serve.engine.embedded import launch
from kinetics_serve.engine.embedded.launch import (
    GIB,
    cpu_defaults,
    engine_command,
    engine_environment,
    kv_cache_bytes,
    kv_element_bytes,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_the_users_arguments_come_last_and_win() -> None:
    command = engine_command("python", "M", "name", 7, ("--max-num-seqs", "3"))
    assert command[-2:] == ("--max-num-seqs", "3")
    assert command.count("--max-num-seqs") == 1
    assert "--enable-prompt-tokens-details" in command


@pytest.mark.parametrize(
    ("given", "absent"),
    [
        (("--no-enforce-eager",), "--enforce-eager"),
        (("--max_num_seqs=8",), "--max-num-seqs"),
        (("--gpu-memory-utilization", "0.3"), "--kv-cache-memory-bytes"),
        (("--max-model-len", "2048"), "--max-model-len"),
        (("--config", "engine.yaml"), "--enforce-eager"),
    ],
)
def test_a_cpu_default_that_the_user_decided_is_not_added(given: tuple[str, ...], absent: str) -> None:
    assert absent in cpu_defaults((), {})
    assert absent not in cpu_defaults(given, {})


def test_vllms_own_variable_for_the_kv_cache_is_respected() -> None:
    assert "--kv-cache-memory-bytes" not in cpu_defaults((), {"VLLM_CPU_KVCACHE_SPACE": "8"})


@pytest.mark.parametrize(("available_gib", "gib"), [(0, 1), (3, 1), (16, 4), (23, 5), (512, 32)])
def test_the_kv_cache_is_a_quarter_of_the_free_memory(available_gib: int, gib: int) -> None:
    assert kv_cache_bytes(available_gib * GIB) == gib * GIB


def test_a_model_folder_needs_no_hub_and_nothing_is_reported(model: Path) -> None:
    environment = engine_environment(str(model), (), {"PATH": "/bin"})
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["DO_NOT_TRACK"] == "1"
    assert environment["PATH"] == "/bin"


def test_a_hub_name_may_use_the_hub() -> None:
    assert "HF_HUB_OFFLINE" not in engine_environment("Qwen/Qwen3-0.6B", (), {})


def test_what_the_user_has_set_stays_set(model: Path) -> None:
    given = {"HF_HUB_OFFLINE": "0", "VLLM_CPU_OMP_THREADS_BIND": "0-1"}
    environment = engine_environment(str(model), (), given)
    assert {name: environment[name] for name in given} == given
    assert "OMP_NUM_THREADS" not in environment


@pytest.mark.parametrize(
    ("stated", "bytes_"),
    [(("--dtype", "float32"), 4), (("--dtype=float",), 4), (("--dtype", "bfloat16"), None), (("--dtype=auto",), None)],
)
def test_an_engine_that_works_in_fp32_keeps_four_bytes_an_element(stated: tuple[str, ...], bytes_: int | None) -> None:
    assert kv_element_bytes(stated) == bytes_


def test_a_cpu_that_cannot_multiply_bf16_works_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "has_cuda_gpu", lambda: False)
    monkeypatch.setattr(launch, "multiplies_bf16", lambda: False)
    options = cpu_defaults((), {})
    assert options[options.index("--dtype") + 1] == "float32"
    assert kv_element_bytes(()) == 4
    monkeypatch.setattr(launch, "multiplies_bf16", lambda: True)
    assert "--dtype" not in cpu_defaults((), {})
    assert kv_element_bytes(()) is None


def test_a_containers_limit_is_what_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "memory_limit_bytes", lambda: GIB)
    assert launch.available_memory_bytes() == GIB
