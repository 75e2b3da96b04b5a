"""`python -m tests.ledger.patient`: kinetics-serve whose answers wait for a ledger as long as it takes."""

from kinetics_serve.commands.main import app
from kinetics_serve.ledger import delivery

if __name__ == "__main__":
    delivery.MOMENT_S = 60.0
    app()
