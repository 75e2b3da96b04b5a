"""`kinetics-serve engine`: only the engine, for front-ends elsewhere."""

import os
import sys

from kinetics_serve.commands.serve import embedded_engine
from kinetics_serve.commands.settings.command_line import taking_options
from kinetics_serve.commands.settings.sources import Settings
from kinetics_serve.commands.terminal import fail

VLLM_API_KEY = "VLLM_API_KEY"
"""vLLM's own variable: a key on its command line would be in the process list."""


@taking_options
def engine(settings: Settings) -> None:
    """Run the vLLM server that `serve` would start, and nothing else: for front-ends that name it as --upstream.

    Heeds --model, --kv-budget, --host, --port, --drain-timeout (how long what runs may take to end after SIGTERM),
    --upstream-api-key (clients need it then) and what follows --.
    """
    from kinetics_serve.engine.embedded.bundled_model import BundledModelError
    from kinetics_serve.engine.embedded.diagnose import EngineError, check_model_folder
    from kinetics_serve.engine.embedded.launch import engine_command, engine_environment

    options = settings.options
    if options.upstream:
        raise fail("--upstream names engines that run already; `engine` starts one: drop it")
    try:
        vllm = embedded_engine(options).supervisor
        assert vllm is not None
        check_model_folder(vllm.model)
    except (OSError, BundledModelError, EngineError) as error:
        raise fail(error) from None
    # vLLM itself would abort what runs. Its last --host wins, over the loopback's.
    drain = ("--shutdown-timeout", str(round(options.drain_timeout)))
    arguments = ("--host", options.host, *drain, *vllm.engine_args)
    command = engine_command(vllm.python, vllm.model, vllm.served_name, options.port, arguments)
    environment = engine_environment(vllm.model, arguments, os.environ)
    if options.upstream_api_key is not None:
        environment[VLLM_API_KEY] = options.upstream_api_key.get_secret_value()
    # In our place, so that the signals of whatever runs this reach vLLM itself.
    sys.stderr.flush()
    os.execve(command[0], command, environment)
