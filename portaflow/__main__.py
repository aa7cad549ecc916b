"""`python -m portaflow`."""

from portaflow.cli import main

if __name__ == "__main__":
    main()
