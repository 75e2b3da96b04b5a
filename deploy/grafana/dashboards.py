"""Grafana's dashboards: this file is their source, `python deploy/grafana/dashboards.py` writes dashboards/*.json.

The foundation SDK is made from Grafana's own schema, so what it writes Grafana can read.
"""

from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from string import ascii_uppercase
from typing import Literal

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import StackingMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef

FOLDER = Path(__file__).parent / "dashboards"

SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")

PRICE = "price"
"""A variable of the cost dashboard: what 10¹⁸ eFLOPs cost, in your money."""

Kind = Literal["lines", "stacked", "number", "bars"]


@dataclass(frozen=True)
class Panel:
    """A picture. queries: PromQL by legend. unit: Grafana's name of it."""

    title: str
    about: str
    queries: dict[str, str]
    unit: str = "short"
    kind: Kind = "lines"


@dataclass(frozen=True)
class Board:
    """A dashboard, and its rows of panels."""

    name: str
    title: str
    rows: dict[str, list[Panel]]
    variables: dict[str, str] = field(default_factory=dict)
    """Text boxes and their defaults."""


def rate(metric: str, by: str, match: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{match}[$__rate_interval]))"


def total(metric: str, by: str, match: str = "") -> str:
    return f"sum by ({by}) (increase({metric}{match}[$__range]))"


def share(above: str, below: str, by: str) -> str:
    """Of two counters, whose rates are summed by the same labels."""
    return f"{rate(above, by)} / {rate(below, by)}"


def mean(histogram: str, by: str) -> str:
    return share(f"{histogram}_sum", f"{histogram}_count", by)


def quantile(at: float, histogram: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({at}, {rate(f'{histogram}_bucket', labels)})"


SPENT, SAVED = "kinetics_eflops_total", "kinetics_eflops_saved_total"

CUT_OFF = rate("kinetics_samples_total", "model", '{outcome="truncated"}')
ENDED = rate("kinetics_samples_total", "model", '{outcome=~"finished|truncated"}')

COST = Board(
    "cost",
    "Kinetics: cost",
    {
        "Spent": [
            Panel(
                "Spent by tenant",
                "eFLOPs charged per second; only where there is a ledger.",
                {"{{tenant}}": rate("kinetics_tenant_eflops_total", "tenant")},
                kind="stacked",
            ),
            Panel(
                "Spent by model and strategy",
                "eFLOPs per second of requests with a budget.",
                {"{{model}}, {{strategy}}": rate(SPENT, "model, strategy")},
                kind="stacked",
            ),
            Panel(
                "Money by tenant",
                "What was charged in the time shown, at the price above for 10¹⁸ eFLOPs.",
                {"{{tenant}}": f"{total('kinetics_tenant_eflops_total', 'tenant')} / 1e18 * ${PRICE}"},
                unit="currencyUSD",
                kind="bars",
            ),
            Panel(
                "Money for an answer",
                "Mean over the requests with a budget that were answered.",
                {
                    "{{model}}": f"{rate(SPENT, 'model')} / 1e18 * ${PRICE} / "
                    + rate("kinetics_requests_total", "model", '{outcome="completed",strategy!="pass_through"}')
                },
                unit="currencyUSD",
            ),
        ],
        "What it went into": [
            Panel(
                "Compute against memory",
                "Arithmetic, and bytes moved at what the hardware could have computed meanwhile.",
                {"{{component}}": rate(SPENT, "component")},
                kind="stacked",
            ),
            Panel(
                "Budget used",
                "Spent over budget of a request.",
                {
                    "mean": mean("kinetics_budget_utilization_ratio", "strategy"),
                },
                unit="percentunit",
            ),
        ],
        "Saved": [
            Panel(
                "Saved",
                "eFLOPs per second that the same answers would have cost more: votes that went on, dense attention, "
                "prompts read once for each sample.",
                {"{{reason}}": rate(SAVED, "reason")},
                kind="stacked",
            ),
            Panel(
                "Against plain dense self-consistency",
                "Spent, over what was spent and saved: the part that is still paid.",
                {
                    "paid": f"sum(rate({SPENT}[$__rate_interval])) / (sum(rate({SPENT}[$__rate_interval])) + "
                    f"sum(rate({SAVED}[$__rate_interval])))"
                },
                unit="percentunit",
            ),
        ],
        "Quotas": [
            Panel(
                "Quota used",
                "Of a tenant's rolling window and calendar month, as of its last request.",
                {"{{tenant}}, {{quota}}": "max by (tenant, quota) (kinetics_tenant_quota_used_ratio)"},
                unit="percentunit",
                kind="bars",
            ),
            Panel(
                "Bills that wait",
                "For the ledger's database: they are in the front-end's outbox.",
                {"{{instance}}": "max by (instance) (kinetics_outbox_bills)"},
            ),
        ],
    },
    {PRICE: "1"},
)

QUALITY = Board(
    "quality",
    "Kinetics: quality",
    {
        "Answers": [
            Panel(
                "Confidence",
                "Mean of what answers say of themselves. A fall means other questions, or another model.",
                {"{{model}}, {{strategy}}": mean("kinetics_answer_confidence", "model, strategy")},
                unit="percentunit",
            ),
            Panel(
                "Agreement",
                "Mean share of the votes that say what the answer says.",
                {"{{model}}, {{strategy}}": mean("kinetics_answer_agreement_ratio", "model, strategy")},
                unit="percentunit",
            ),
        ],
        "Samples": [
            Panel(
                "Samples for an answer",
                "Mean and 95th percentile.",
                {
                    "mean, {{strategy}}": mean("kinetics_samples_per_answer", "strategy"),
                    "95 %, {{strategy}}": quantile(0.95, "kinetics_samples_per_answer", "strategy"),
                },
            ),
            Panel(
                "How samples end",
                "Truncated: cut off by max_tokens. Cancelled: the answer was there already.",
                {"{{outcome}}": rate("kinetics_samples_total", "outcome")},
                kind="stacked",
            ),
            Panel(
                "Truncated",
                "Share of the samples that ended or were cut off. Where many are: raise max_tokens.",
                {"{{model}}": f"({CUT_OFF} or 0 * {ENDED}) / {ENDED}"},  # none yet is none, not unknown
                unit="percentunit",
            ),
            Panel(
                "Tokens",
                "Per second.",
                {"{{kind}}": rate("kinetics_tokens_total", "kind")},
                kind="stacked",
            ),
        ],
    },
)

SERVICE = Board(
    "service",
    "Kinetics: service",
    {
        "Requests": [
            Panel(
                "Requests",
                "Per second, by how they ended.",
                {"{{outcome}}": rate("kinetics_requests_total", "outcome")},
                unit="reqps",
                kind="stacked",
            ),
            Panel(
                "Latency",
                "From a request's arrival to its end.",
                {f"{round(100 * at)} %": quantile(at, "kinetics_request_duration_seconds") for at in (0.5, 0.95, 0.99)},
                unit="s",
            ),
            Panel(
                "Time to the first token",
                "From a request's arrival to any sample's first token.",
                {f"{round(100 * at)} %": quantile(at, "kinetics_time_to_first_token_seconds") for at in (0.5, 0.95)},
                unit="s",
            ),
        ],
        "Queue": [
            Panel("Waiting", "Requests in the queue.", {"{{instance}}": "sum by (instance) (kinetics_queue_requests)"}),
            Panel(
                "Load",
                "What runs, over what may run at once.",
                {"{{instance}}": "max by (instance) (kinetics_load_ratio)"},
                unit="percentunit",
            ),
            Panel(
                "Wait",
                "Seconds in the queue.",
                {"95 %": quantile(0.95, "kinetics_queue_wait_seconds")},
                unit="s",
            ),
            Panel(
                "Refused",
                "Per second: no room in the queue, or no turn in time.",
                {"refused": "sum(rate(kinetics_refused_requests_total[$__rate_interval]))"},
                unit="reqps",
            ),
            Panel(
                "Samples that generate",
                "On all engines.",
                {"{{model}}": "sum by (model) (kinetics_inflight_samples)"},
            ),
        ],
        "Engines": [
            Panel(
                "Up",
                "1 where an engine answers and its circuit is closed.",
                {"{{upstream}}": "min by (upstream) (kinetics_upstream_up)"},
                kind="number",
            ),
            Panel(
                "Circuit openings",
                "How often an engine failed requests and was given a rest.",
                {"{{upstream}}": "max by (upstream) (kinetics_upstream_circuit_openings_total)"},
                kind="number",
            ),
            Panel(
                "KV cache",
                "vLLM's own: share of the KV cache in use.",
                {"{{instance}}": "max by (instance) (vllm:kv_cache_usage_perc)"},
                unit="percentunit",
            ),
            Panel(
                "Batch",
                "vLLM's own: requests that run, and that wait inside it.",
                {
                    "running, {{instance}}": "sum by (instance) (vllm:num_requests_running)",
                    "waiting, {{instance}}": "sum by (instance) (vllm:num_requests_waiting)",
                },
            ),
            Panel(
                "Tokens generated",
                "vLLM's own: per second.",
                {"{{instance}}": rate("vllm:generation_tokens_total", "instance")},
            ),
        ],
    },
)

BOARDS = (COST, QUALITY, SERVICE)


def built(board: Board) -> dashboard.Dashboard:
    found = (
        dashboard.Dashboard(board.title)
        .uid(f"kinetics-{board.name}")
        .tags(["kinetics-serve"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
    )
    for name, default in board.variables.items():
        found.with_variable(dashboard.TextBoxVariable(name).default_value(default).label(name))
    ids = count(1)
    for row, panels in board.rows.items():
        found.with_row(dashboard.Row(row).id(next(ids)))
        for panel in panels:
            found.with_panel(drawn(panel).id(next(ids)))
    return found


def drawn(panel: Panel) -> timeseries.Panel | stat.Panel | bargauge.Panel:
    made: timeseries.Panel | stat.Panel | bargauge.Panel
    if panel.kind == "number":
        made = stat.Panel()
    elif panel.kind == "bars":
        made = bargauge.Panel()
    else:
        made = timeseries.Panel().fill_opacity(30 if panel.kind == "stacked" else 5)
        if panel.kind == "stacked":
            made.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    made.title(panel.title).description(panel.about).unit(panel.unit).datasource(SOURCE).span(8).height(8)
    for letter, (legend, query) in zip(ascii_uppercase, panel.queries.items(), strict=False):
        made.with_target(prometheus.Dataquery().expr(query).legend_format(legend).ref_id(letter))
    return made


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for board in BOARDS:
        text = JSONEncoder(sort_keys=True, indent=2).encode(built(board).build())
        (FOLDER / f"{board.name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
