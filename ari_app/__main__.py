"""`python -m ari_app` is the `ari-app` command."""

from ari_app.cli import main

if __name__ == "__main__":
    main()
