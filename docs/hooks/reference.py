"""The reference, written from what the program says of itself."""

from openapi_page import page_of
from prometheus_client.metrics import MetricWrapperBase
from typer import Context
from typer.cli import get_docs_for_click
from typer.main import get_command

from kinetics_serve.api.app import create_app
from kinetics_serve.commands.main import app
from kinetics_serve.commands.settings import reference as options
from kinetics_serve.cost.hardware import GPUS
from kinetics_serve.observability.metrics import Metrics

COMMAND = "kinetics-serve"


def settings() -> str:
    """A row for every option of `serve`."""
    return options.table()


def commands() -> str:
    """A section for every command, with its options."""
    command = get_command(app)
    context = Context(command, info_name=COMMAND, color=False)
    page = get_docs_for_click(obj=command, ctx=context, name=COMMAND)
    return page.partition("\n")[2]  # without its title


def metrics() -> str:
    """A row for every metric of ours, by the names that Prometheus sees."""
    found = [metric for metric in vars(Metrics()).values() if isinstance(metric, MetricWrapperBase)]
    rows = []
    for metric in found:
        (family,) = metric.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(["| metric | type | labels | |", "|---|---|---|---|", *sorted(rows)])


def http() -> str:
    """A section for every route, and one for every object, of the OpenAPI document."""
    return page_of(create_app(["http://localhost:8001"], GPUS["h100"]).openapi())
