"""Options from the command line, the environment, `.env`, a file; and what is said of them."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from kinetics_serve.commands.main import app
from kinetics_serve.commands.settings import reference
from kinetics_serve.commands.settings.options import EFFORTS, Options
from kinetics_serve.commands.settings.sources import SettingsError, option, read
from kinetics_serve.engine.upstream import Patience
from kinetics_serve.requests.services import DEFAULT_EFFORTS, DEFAULT_MAX_BODY_BYTES

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that we are in, where no `.env` is."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["config", "show", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["config", "show", *arguments])
    assert result.exit_code == 1, result.output
    return " ".join(result.stderr.split())


def origin(line: str) -> str:
    return line.rpartition("  # ")[2]


def test_the_command_line_wins_over_the_environment_that_over_dotenv_that_over_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "kinetics.yaml").write_text("port: 1\nworkers: 1\nmax_queue: 1\nlease_s: 11\n")
    (folder / ".env").write_text("KINETICS_PORT=2\nKINETICS_WORKERS=2\nKINETICS_MAX_QUEUE=2\nOTHER=x\n")
    monkeypatch.setenv("KINETICS_PORT", "3")
    monkeypatch.setenv("KINETICS_WORKERS", "3")
    settings = read({"port": "4"}, Path("kinetics.yaml"))
    options = settings.options
    assert (options.port, options.workers, options.max_queue, options.lease_s) == (4, 3, 2, 11)
    assert options.max_body_mb == 8
    assert settings.origins == {
        "port": "command line",
        "workers": "environment (KINETICS_WORKERS)",
        "max_queue": ".env (KINETICS_MAX_QUEUE)",
        "lease_s": "kinetics.yaml",
    }


def test_lists_and_numbers_by_name_are_stated_in_each_sources_own_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "kinetics.yaml").write_text(
        "architecture: {a: /a}\neffort: {high: 32}\nengine_args: [--max-model-len, '4096']\n"
    )
    from_file = read({}, Path("kinetics.yaml")).options
    assert from_file.architecture == ["a=/a"]
    assert from_file.effort == EFFORTS | {"high": 32}
    assert from_file.engine_args == ["--max-model-len", "4096"]
    monkeypatch.setenv("KINETICS_UPSTREAM", "http://a:1, http://b:2")
    monkeypatch.setenv("KINETICS_EFFORT", "low=2,high=8")
    from_environment = read({}).options
    assert from_environment.upstream == ["http://a:1", "http://b:2"]
    assert from_environment.effort == EFFORTS | {"low": 2, "high": 8}
    assert read({"upstream": ["http://c"]}).options.upstream == ["http://c"]


def test_upstreams_and_origins_are_taken_in_every_form_that_they_have() -> None:
    assert read({"upstream": ["http://GPU-1:8001/v1/", "https://b/"]}).options.upstream == [
        "http://gpu-1:8001",
        "https://b",
    ]
    origins = ["*", "https://app.example", "http://localhost:3000", "http://[::1]:3000", "chrome-extension://abcdef"]
    assert read({"cors_origin": origins}).options.cors_origin == origins


def test_secrets_are_read_from_files_and_shown_to_nobody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "secret").write_text("sk-very-secret\n")
    monkeypatch.setenv("KINETICS_UPSTREAM_API_KEY_FILE", str(folder / "secret"))
    monkeypatch.setenv("KINETICS_LEDGER", "postgresql://me:hidden@db/ledger")
    key = read({}).options.upstream_api_key
    assert key is not None
    assert key.get_secret_value() == "sk-very-secret"
    output = shown()
    assert "sk-very-secret" not in output
    assert "hidden" not in output
    assert "KINETICS_UPSTREAM_API_KEY_FILE" in output
    monkeypatch.setenv("KINETICS_UPSTREAM_API_KEY", "another")
    assert "keep one of them" in refused()
    assert "another" not in refused()


def test_what_is_shown_says_where_it_came_from_and_is_a_file_of_settings(folder: Path) -> None:
    lines = {line.split(":")[0]: line for line in shown("--port", "9000", "--log-level", "debug").splitlines()}
    assert set(lines) == set(Options.model_fields)
    assert origin(lines["port"]) == "command line"
    assert origin(lines["host"]) == "default"
    (folder / "again.yaml").write_text("\n".join(lines.values()))
    assert read({}, Path("again.yaml")).options == read({"port": "9000", "log_level": "debug"}).options


@pytest.mark.parametrize(
    ("file", "arguments", "words"),
    [
        ("max_qeue: 3", [], "there is no option 'max_qeue'; did you mean 'max_queue'?"),
        ("port: eighty", [], "--port (kinetics.yaml): input should be a valid integer"),
        ("just a text", [], "must hold lines such as"),
        ("a: [", [], "can't be read"),
        ("", ["--log-level", "inf"], "expected one of debug, info, warning; given: 'inf'; did you mean 'info'?"),
        ("", ["--port", "70000"], "less than or equal to 65535; given: '70000'"),
        ("", ["--max-deadline", "nan"], "--max-deadline"),
        ("", ["--upstream", "gpu-1"], "expected a URL such as http://localhost:8001; given: 'gpu-1'"),
        ("", ["--upstream", "http://me:naïve@x"], "without a user and a password"),
        ("upstream: ['http://x?key=naïve']", [], "ends with its path"),
        ("", ["--upstream", "http://x", "--upstream", "http://X:80/v1"], "each server once"),
        ("", ["--cors-origin", "foo"], "such as https://app.example or http://localhost:3000"),
        ("", ["--cors-origin", "https://app.example/"], "with nothing after it; given: 'https://app.example/'"),
        ("", ["--cors-origin", "https://App.example"], "in lower case"),
        ("", ["--kv-budget", "5"], "expected auto, dense or a number of tokens from 112; given: '5'"),
        ("", ["--verifier", "host"], "expected HOST:PORT"),
        ("", ["--effort", "high"], "expected NAME=SAMPLES"),
        ("", ["--model", "m", "--upstream", "http://a"], "give one of them"),
        ("", ["--upstream-api-key", "naïve"], "characters that a header can't carry"),
        ("model: m\nupstream: [http://a]", [], "give one of them"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(folder: Path, file: str, arguments: list[str], words: str) -> None:
    (folder / "kinetics.yaml").write_text(file)
    message = refused("--config", "kinetics.yaml", *arguments)
    assert words in message
    assert "naïve" not in message


def test_an_unknown_variable_is_a_mistake_unless_kubernetes_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINETICS_PORT", "tcp://10.0.0.1:8000")
    monkeypatch.setenv("KINETICS_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KINETICS_SERVE_PORT_8000_TCP_ADDR", "10.0.0.1")
    assert read({}).options.port == 8000
    monkeypatch.setenv("KINETICS_MAX_QEUE", "3")
    with pytest.raises(SettingsError, match=r"did you mean 'KINETICS_MAX_QUEUE'\?"):
        read({})


def test_an_unknown_option_of_the_command_line_gets_the_nearest() -> None:
    result = CliRunner().invoke(app, ["serve", "--upstrem", "http://a"])
    assert result.exit_code == 2
    assert "--upstream" in result.output


def test_the_environment_may_name_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "elsewhere.yaml").write_text("port: 81")
    monkeypatch.setenv("KINETICS_CONFIG", "elsewhere.yaml")
    assert read({}).options.port == 81


def test_other_commands_find_the_servers_ledger(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "url").write_text(str(folder / "ledger.db"))
    monkeypatch.setenv("KINETICS_LEDGER_FILE", str(folder / "url"))
    assert CliRunner().invoke(app, ["tenants", "set", "acme"]).exit_code == 0
    assert (folder / "ledger.db").is_file()


def test_other_commands_find_the_ledger_of_the_servers_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "kinetics.yaml").write_text("ledger: ledger.db\n")
    (folder / ".env").write_text("KINETICS_CONFIG=kinetics.yaml\n")
    assert CliRunner().invoke(app, ["tenants", "set", "acme"]).exit_code == 0
    assert (folder / "ledger.db").is_file()


def test_the_command_line_wins_with_a_switch_that_is_off_and_with_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINETICS_ALLOW_CODE", "true")
    monkeypatch.setenv("KINETICS_LEDGER", "ledger.db")
    monkeypatch.setenv("KINETICS_CORS_ORIGIN", "https://a")
    monkeypatch.setenv("KINETICS_MODEL", "")
    monkeypatch.setenv("KINETICS_EFFORT", "")
    lines = shown("--no-allow-code", "--ledger", "", "--cors-origin", "").splitlines()
    by_name = {line.split(":")[0]: line for line in lines}
    assert by_name["allow_code"].split() == ["allow_code:", "false", "#", "command", "line"]
    assert by_name["ledger"].split() == ["ledger:", "null", "#", "command", "line"]
    assert by_name["cors_origin"].split() == ["cors_origin:", "[]", "#", "command", "line"]
    assert origin(by_name["model"]) == origin(by_name["effort"]) == "default"
    assert "allow_code: true" in shown()


@pytest.mark.parametrize("name", ["UPSTREAM_API_KEY", "ADMIN_API_KEY", "LEDGER"])
def test_an_empty_secret_is_a_mistake_that_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (folder / "empty").write_text("\n")
    monkeypatch.setenv(f"KINETICS_{name}_FILE", str(folder / "empty"))
    assert f"KINETICS_{name}_FILE (environment): {folder}/empty is empty" in refused()
    monkeypatch.delenv(f"KINETICS_{name}_FILE")
    (folder / ".env").write_text(f"KINETICS_{name}=\n")
    assert f"KINETICS_{name} (.env) is empty" in refused()


def test_a_key_that_is_empty_on_the_command_line_or_in_a_file_stands_for_no_open_door(folder: Path) -> None:
    assert "--upstream-api-key (command line): it is empty" in refused("--upstream-api-key", "")
    (folder / "kinetics.yaml").write_text("upstream_api_key: ''\n")
    assert "--upstream-api-key (kinetics.yaml): it is empty" in refused("--config", "kinetics.yaml")


def test_the_defaults_are_those_of_the_parts() -> None:
    options = Options()
    assert EFFORTS == DEFAULT_EFFORTS
    assert options.max_body_mb << 20 == DEFAULT_MAX_BODY_BYTES
    assert Patience(options.first_token_timeout, options.token_timeout) == Patience()


def test_programs_of_samples_run_only_where_somebody_says_so(folder: Path) -> None:
    assert not read({}).options.allow_code
    (folder / "kinetics.yaml").write_text("allow_code: true\n")
    assert read({}, Path("kinetics.yaml")).options.allow_code
    assert CliRunner().invoke(app, ["config", "show", "--allow-code"]).output.count("allow_code: true") == 1


def test_every_option_is_documented() -> None:
    assert reference.table() in (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def test_the_example_is_complete_and_holds() -> None:
    text = (ROOT / "examples" / "kinetics.yaml").read_text(encoding="utf-8")
    assert text == reference.template()
    entries = [line[2:] for line in text.splitlines() if line[2:].partition(":")[0] in Options.model_fields]
    assert read({}, None).options == Options(**yaml.safe_load("\n".join(entries)))


def test_the_help_names_every_option() -> None:
    output = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["serve", "--help"]).output
    assert {option(name) for name in Options.model_fields if name != "engine_args"} <= set(output.split())
