from kinetics_serve.cli import app

app()
