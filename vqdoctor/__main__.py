"""`python -m vqdoctor`."""

from vqdoctor.cli.main import run

if __name__ == "__main__":
    run()
