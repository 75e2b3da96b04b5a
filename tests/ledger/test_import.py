"""What a front-end loads."""

import subprocess
import sys


def test_a_front_end_without_a_ledger_loads_no_sql_and_none_loads_torch_or_vllm() -> None:
    check = (
        "import sys, kinetics_serve.server.serve, kinetics_serve.commands.main, kinetics_serve.api.app\n"
        "print('sqlalchemy' in sys.modules)\n"
        "import kinetics_serve.ledger.ledger; print(*({'sqlalchemy', 'torch', 'vllm'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True).stdout
    assert output.split() == ["False", "sqlalchemy"]
