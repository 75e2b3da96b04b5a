from kinetics_serve.commands.main import app

app()
