"""Arguments and help of `openai-runs doctor`."""

from pathlib import Path

from openai_runs._cli.parsing.kinds import Switch

__all__ = ["doctor"]


def doctor(
    *,
    base_url: str | None = None,
    api_key_env: str | None = None,
    db: str | None = None,
    model_url: str | None = None,
    model_key_env: str | None = None,
    model: str | None = None,
    config: Path | None = None,
    json: Switch = False,
) -> int:
    """Check the installation, a database, models and a server.

    Each line is ok, warn or fail, with what to do next. Nothing is changed: a database is
    opened for reading, the server is sent GETs, a model is asked for one word.

        openai-runs doctor
        openai-runs doctor --db runs.db --model-url http://127.0.0.1:11434/v1
        openai-runs doctor --base-url http://127.0.0.1:8080/v1

    Exits with 1 if anything fails.

    Args:
        base_url: Server whose parts are tried, up to /v1; else OPENAI_BASE_URL, if that is set.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        db: Database file: whether it is whole, its version, and which server has it. Or
            postgresql://HOST/NAME: whether it can be used, and who executes its runs.
        model_url: Chat-completions endpoint to try: its URL before /chat/completions.
        model_key_env: Environment variable that holds the key of that endpoint.
        model: Model to ask there; else the first that the endpoint lists.
        config: TOML file of `serve` whose endpoints are tried instead.
        json: Print one line of JSON: whether it all works, and what was found.
    """
    from openai_runs._cli.commands.doctor import Examination, examine
    from openai_runs._cli.connecting import Place

    place = Place(
        base_url=base_url,
        api_key_env=api_key_env,
        db=db,
        model_url=model_url,
        model_key_env=model_key_env,
    )
    return examine(Examination(place=place, model=model, config=config, json=json))
