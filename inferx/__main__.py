"""`python -m inferx`: the command, from whichever environment runs it."""

from inferx.cli import main

if __name__ == "__main__":
    main()
