"""What the server has counted, by its /metrics: the other side of the clients' sums."""

from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

from deploy.loadtest.mix import LEFT_STRATEGY

WAIT_S = 10


@dataclass(frozen=True, slots=True)
class Counted:
    """completed: requests, with a budget or without. refused: for want of room. left_eflops: of clients that leave,
    which may get no bill; eflops are the others'."""

    completed: int
    refused: int
    eflops: float
    left_eflops: float

    def since(self, before: "Counted") -> "Counted":
        return Counted(
            self.completed - before.completed,
            self.refused - before.refused,
            self.eflops - before.eflops,
            self.left_eflops - before.left_eflops,
        )


def ask(url: str) -> Counted | None:
    """None where /metrics can't be read: many keep it from the outside."""
    try:
        response = httpx.get(f"{url}/metrics", timeout=WAIT_S, trust_env=False)
        return read(response.text) if response.status_code == 200 else None
    except (httpx.HTTPError, ValueError):
        return None


def read(metrics: str) -> Counted:
    """metrics: in Prometheus' text format."""
    completed, refused, eflops, left = 0.0, 0.0, 0.0, 0.0
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == "kinetics_requests_total" and sample.labels["outcome"] == "completed":
                completed += sample.value
            elif sample.name == "kinetics_refused_requests_total":
                refused += sample.value
            elif sample.name == "kinetics_eflops_total" and sample.labels["strategy"] == LEFT_STRATEGY:
                left += sample.value
            elif sample.name == "kinetics_eflops_total":
                eflops += sample.value
    return Counted(round(completed), round(refused), eflops, left)
