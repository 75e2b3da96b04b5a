"""Why an engine could not start."""

from pathlib import Path

import pytest

from kinetics_serve.engine.embedded.diagnose import EngineError, check_model_folder, explain, last_error


def test_a_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no config\.json"):
        check_model_folder(str(tmp_path))
    with pytest.raises(EngineError, match="Model not found"):
        check_model_folder(str(tmp_path / "nowhere"))
    check_model_folder("Qwen/Qwen3-0.6B")  # a hub name: vLLM has to find out


# What vLLM 0.32 logged, shortened.
@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("entry.py: error: unrecognized arguments: --no-such-option", 2, "unrecognized arguments: --no-such-option"),
        ("entry.py: error: argument --max-num-seqs: invalid int value: 'many'", 2, "argument --max-num-seqs"),
        (
            "OSError: We couldn't connect to 'https://huggingface.co' to load the files",
            1,
            "hub cannot be reached for some/model",
        ),
        (
            "huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error.",
            1,
            "Model not found: some/model",
        ),
        (
            "(EngineCore pid=7) ERROR 11-23 22:36:58 [core.py:133] ValueError: To serve at least one request with the "
            "model's max seq len (8192), (0.18 GiB KV cache is needed, which is larger than the available KV cache "
            "memory (0.01 GiB). Based on the available memory, the estimated maximum model length is 256. Try "
            "increasing `gpu_memory_utilization` or decreasing `max_model_len`.",
            1,
            "maximum model length is 256. Raise --kv-cache-memory-bytes",
        ),
        (
            "ValueError: Available memory on node 0 (9.0/9.7 GiB) on kv cache allocation is less than requested memory "
            "for kv (838.19 GiB). Decrease --kv-cache-memory-bytes",
            1,
            "Out of memory: ValueError: Available memory on node 0",
        ),
        (
            "  Value error, User-specified max_model_len (100000) is greater than the derived max_model_len "
            "(max_position_embeddings=8192) [type=value_error, input_value=ArgsKwargs((), {'model':...",
            1,
            "greater than the derived max_model_len (max_position_embeddings=8192). Check the engine arguments.",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", 1, "Out of memory"),
        ("INFO loading", 137, "killed, most likely because the machine is out of memory"),
    ],
)
def test_the_reason_of_a_failure_is_said_with_what_to_do(line: str, status: int, said: str) -> None:
    second_hand = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    assert said in str(explain([line, second_hand], status, "some/model", "python"))


def test_the_root_cause_is_preferred_to_what_follows_from_it() -> None:
    lines = [
        "(EngineCore pid=7) ERROR 11-23 22:36:58 [core.py:133] ValueError: the cause",
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.",
        "nanobind: leaked 514 functions!",
    ]
    assert str(explain(lines, 1, "M", "python")).endswith("(exit status 1): ValueError: the cause")


def test_without_an_exception_the_last_line_of_level_error_counts() -> None:
    died = "(APIServer pid=1) ERROR 11-23 22:40:01 [core_client.py:9] Engine core proc EngineCore died unexpectedly"
    assert (
        last_error([died, "INFO:     Finished server process [1]"]) == "Engine core proc EngineCore died unexpectedly"
    )
    assert last_error(["INFO:     Finished server process [1]"]) is None
