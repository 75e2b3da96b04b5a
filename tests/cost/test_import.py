import subprocess
import sys


def test_importing_the_cost_model_loads_no_heavy_library() -> None:
    script = (
        "import sys, kinetics_serve.cost;"
        "print(sorted({'numpy', 'torch', 'vllm', 'huggingface_hub', 'httpx'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
