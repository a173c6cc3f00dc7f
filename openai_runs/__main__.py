"""`python -m openai_runs` is `openai-runs`."""

from openai_runs._cli import main

if __name__ == "__main__":
    main()
